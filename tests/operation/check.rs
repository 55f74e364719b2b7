//! The command line.

use crate::harness::{cluster, proxy};

struct Checked {
    success: bool,
    said: String,
}

fn check(config: &str, more: &[&str], env: &[(&str, &str)]) -> Checked {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, config).unwrap();
    let output = proxy::command(cluster())
        .arg("--check")
        .arg("--config")
        .arg(&file)
        .args(more)
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Checked { success: output.status.success(), said }
}

#[test]
fn a_good_config_passes() {
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml")).unwrap();
    for config in ["", "[cache]\nmax_entries = 5\n", &documented] {
        let checked = check(config, &[], &[]);
        assert!(checked.success, "{}", checked.said);
    }
}

#[test]
fn a_wrong_key_or_value_is_named_with_its_line() {
    for (config, key, line) in [
        ("[server]\n\n[cache]\nmax_entires = 5\n", "max_entires", "4"),
        ("[cache]\nmax_entries = \"many\"\n", "max_entries", "2"),
        ("\n[cahce]\nmax_entries = 5\n", "cahce", "2"),
        ("[pool]\nmode = \"transactional\"\n", "mode", "2"),
        ("[server]\nlisten = [\"nonsense\"]\n", "listen", "2"),
        ("[upstream]\nport = 70000\n", "port", "2"),
        ("[server\n", "", "1"),
    ] {
        let checked = check(config, &[], &[]);
        assert!(!checked.success, "this should be refused: {config}");
        assert!(checked.said.contains(key) && checked.said.contains(line), "{config}: {}", checked.said);
        assert!(!checked.said.contains("panicked"), "{}", checked.said);
    }
}

#[test]
fn a_wrong_flag_or_variable_is_named() {
    let checked = check("", &["--listen", "nonsense"], &[]);
    assert!(!checked.success && checked.said.contains("listen"), "{}", checked.said);
    let checked = check("", &[], &[("HELIOSPROXY_CACHE_MAX_ENTRIES", "many")]);
    assert!(!checked.success && checked.said.contains("HELIOSPROXY_CACHE_MAX_ENTRIES"), "{}", checked.said);
    let checked = check("", &[], &[("HELIOSPROXY_CACHE_MAX_ENTIRES", "5")]);
    assert!(!checked.success && checked.said.contains("HELIOSPROXY_CACHE_MAX_ENTIRES"), "{}", checked.said);
    let checked = check("", &["--upstream", "mysql://user:secret@localhost/db"], &[]);
    assert!(!checked.success && checked.said.contains("upstream"), "{}", checked.said);
    assert!(!checked.said.contains("secret"), "an error shows a password: {}", checked.said);
}

#[test]
fn help_and_version_are_answered() {
    for (flag, wanted) in [("--help", "--upstream"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let output = proxy::command(cluster()).arg(flag).output().unwrap();
        assert!(output.status.success());
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(wanted), "{flag}: {said}");
    }
}
