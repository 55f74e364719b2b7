//! The process itself, as the kernel sees it, under the names that Prometheus's client libraries use.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// What `/proc` says about this process.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Process {
    pub resident_bytes: u64,
    pub cpu_seconds: f64,
    pub open_fds: u64,
    /// Seconds since 1970.
    pub started: f64,
}

/// Ticks of `utime` and `stime`: `sysconf(_SC_CLK_TCK)` is 100 on every Linux that Rust runs on.
const TICKS_A_SECOND: f64 = 100.0;

impl Process {
    /// `None` where there is no `/proc`.
    pub fn now() -> Option<Self> {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let uptime = read("/proc/uptime")?.split(' ').next()?.parse::<f64>().ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
        let open_fds = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        Self::of(&read("/proc/self/status")?, &read("/proc/self/stat")?, open_fds, now - uptime)
    }

    fn of(status: &str, stat: &str, open_fds: u64, booted: f64) -> Option<Self> {
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
        // The program's name stands in parentheses and may hold anything; the third field comes after them.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            resident_bytes: resident * 1024,
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_A_SECOND,
            open_fds,
            started: booted + ticks(22)? / TICKS_A_SECOND,
        })
    }

    /// Appends it in Prometheus's text format.
    pub fn render(&self, out: &mut String) {
        let mut metric = |name: &str, kind: &str, help: &str, value: f64| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        metric("process_cpu_seconds_total", "counter", "Processor time used, in seconds", self.cpu_seconds);
        metric("process_resident_memory_bytes", "gauge", "Memory in use, in bytes", self.resident_bytes as f64);
        metric("process_open_fds", "gauge", "Open file descriptors", self.open_fds as f64);
        metric("process_start_time_seconds", "gauge", "When the process began, in seconds since 1970", self.started);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_program_name_does_not_shift_the_fields() {
        let status = "Name:\thelios\nVmRSS:\t    2048 kB\nThreads: 3\n";
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 250 150 0 0 20 0 3 0 1000 9 512 18446744073709551615";
        let process = Process::of(status, stat, 5, 100.0).expect("well-formed");
        assert_eq!(process, Process { resident_bytes: 2 << 20, cpu_seconds: 4.0, open_fds: 5, started: 110.0 });
        assert_eq!(Process::of("", stat, 5, 100.0), None);
    }

    #[test]
    fn this_process_is_alive() {
        let process = Process::now().expect("there is a /proc");
        assert!(process.resident_bytes > 1 << 20 && process.open_fds >= 3 && process.started > 1e9, "{process:?}");
    }
}
