//! The log of slow statements. They are named by their shape, so no value that a client has sent gets into the log unless it is wanted
//! there.

use std::fmt::{self, Write};
use std::time::Duration;

use bytes::Bytes;

use super::Session;
use crate::cache::ledger::Page;
use crate::telemetry::metrics::{Class, Path};
use crate::wire::message::Bind;

/// As much of a text, or of all parameters, is logged.
const LONGEST: usize = 4096;

/// A statement with its values.
#[derive(Debug)]
pub struct Sent {
    text: Bytes,
    /// The body of its Bind.
    bind: Option<Bytes>,
}

impl Session {
    /// A copy of a statement that is relayed, if it is logged with its values should it be slow.
    pub(super) fn sent(&self, text: &[u8], bind: Option<&[u8]>) -> Option<Box<Sent>> {
        let copy = || Sent { text: Bytes::copy_from_slice(text), bind: bind.map(Bytes::copy_from_slice) };
        self.logs_parameters().then(copy).map(Box::new)
    }

    pub(super) fn logs_parameters(&self) -> bool {
        let log = &self.shared.config.load().log;
        log.slow_query_parameters && log.slow_query_ms > 0
    }

    /// Says of a request that the upstream took long for what it was. It has been answered.
    pub(super) fn log_if_slow(
        &self,
        page: Option<&Page>,
        sent: Option<&Sent>,
        class: Class,
        path: Path,
        failed: bool,
        took: Duration,
    ) {
        let threshold = self.shared.config.load().log.slow_query_ms;
        if threshold == 0 || took < Duration::from_millis(threshold) {
            return;
        }
        let who = &self.control.who;
        let statement = page.map(|page| page.id.to_string());
        let query = page.map_or("(several statements, or a text that is not looked into)", |page| &*page.text);
        let reason = page.and_then(|page| page.figures().reason);
        let cache = match (page, reason) {
            (Some(page), None) if page.is_read => "miss",
            (_, Some(reason)) => reason.word(),
            _ => "not_read",
        };
        tracing::warn!(
            took_ms = took.as_millis() as u64,
            class = class.label(),
            path = path.label(),
            failed,
            cache,
            statement = statement.as_deref(),
            query,
            sent = sent.map(Sent::text).as_deref(),
            parameters = sent.and_then(Sent::parameters).as_deref(),
            database = %who.database,
            user = %who.user,
            application_name = %who.application_name,
            backend_pid = self.control.activity.backend(),
            "slow statement"
        );
    }
}

impl Sent {
    fn text(&self) -> String {
        cut(&self.text)
    }

    /// As PostgreSQL logs them; those in binary form in hexadecimal.
    fn parameters(&self) -> Option<String> {
        let bind = Bind::decode(self.bind.as_deref()?).ok().filter(|bind| !bind.parameters.is_empty())?;
        let mut said = String::new();
        for (index, value) in bind.parameters.iter().enumerate() {
            if said.len() > LONGEST {
                said.push_str(", ...");
                break;
            }
            let comma = if index == 0 { "" } else { ", " };
            let is_binary = bind.parameter(index).is_some_and(|(format, _)| format != 0);
            // Writing to a String cannot fail.
            let _ = write!(said, "{comma}${} = {}", index + 1, Literal { value, is_binary });
        }
        Some(said)
    }
}

struct Literal<'a> {
    value: Option<&'a [u8]>,
    is_binary: bool,
}

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(value) = self.value else { return f.write_str("NULL") };
        if !self.is_binary {
            return write!(f, "'{}'", cut(value).replace('\'', "''"));
        }
        f.write_str("'\\x")?;
        for byte in &value[..value.len().min(LONGEST)] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(if value.len() > LONGEST { "...'" } else { "'" })
    }
}

/// What of it is logged. What is no UTF-8 is replaced.
fn cut(text: &[u8]) -> String {
    let here = text.len().min(LONGEST);
    let mut said = String::from_utf8_lossy(&text[..here]).into_owned();
    if here < text.len() {
        said.push_str("...");
    }
    said
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::frame::HEADER_BYTES;
    use crate::wire::message::encode;

    fn parameters(formats: &[i16], values: &[Option<&[u8]>]) -> Option<String> {
        let mut message = BytesMut::new();
        encode::bind(&mut message, b"", b"", formats, values.iter().copied(), &[]).unwrap();
        let sent = Sent { text: Bytes::new(), bind: Some(message.split_off(HEADER_BYTES).freeze()) };
        sent.parameters()
    }

    #[test]
    fn parameters_are_shown_as_postgresql_logs_them() {
        assert_eq!(parameters(&[], &[]), None);
        let shown = parameters(&[0, 1, 0], &[Some(b"it's"), Some(&[0, 0, 1, 255]), None]);
        assert_eq!(shown.as_deref(), Some(r"$1 = 'it''s', $2 = '\x000001ff', $3 = NULL"));
    }

    #[test]
    fn a_log_line_has_a_bound() {
        let long = vec![b'x'; 100_000];
        let shown = parameters(&[1, 0, 0], &[Some(&long), Some(&long), Some(&long)]).unwrap();
        assert!(shown.len() < 4 * LONGEST && shown.ends_with(", ..."), "{} bytes", shown.len());
        assert_eq!(cut(&long).len(), LONGEST + 3);
    }
}
