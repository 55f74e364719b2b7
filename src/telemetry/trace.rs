//! Operations that belong together, across processes: W3C Trace Context (`traceparent`, level 1).
//!
//! **Invariant.** A child has its parent's trace id and sampling, and a span id of its own. An id is never all zeros; a header that
//! says otherwise, or is not of the form that the recommendation gives, is no context.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Where an operation stands in its trace. Serialised as its `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanContext {
    pub trace_id: u128,
    pub span_id: u64,
    pub sampled: bool,
}

/// An operation that is on its way; when it ends its time is logged at level debug.
#[derive(Debug)]
pub struct TracedOperation {
    name: &'static str,
    context: SpanContext,
    parent: Option<u64>,
    started: Instant,
    error: Option<String>,
}

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("not a traceparent")]
pub struct NoTraceparent;

impl SpanContext {
    /// The first of a new trace.
    pub fn root() -> Self {
        Self { trace_id: rand::random::<u128>().max(1), span_id: span_id(), sampled: true }
    }

    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: span_id(), ..*self }
    }

    /// As the header is written.
    pub fn traceparent(&self) -> String {
        self.to_string()
    }

    /// The context in a comment that sqlcommenter puts behind or in front of a statement: `/*key='value',traceparent='...'*/`.
    pub fn of_comment(sql: &[u8]) -> Option<Self> {
        const NAME: &[u8] = b"traceparent='";
        const LENGTH: usize = 55;
        let comment = sql.windows(2).position(|two| two == b"/*")?;
        let at = comment + sql[comment..].windows(NAME.len()).position(|name| name == NAME)? + NAME.len();
        let value = sql.get(at..at + LENGTH)?;
        std::str::from_utf8(value).ok().filter(|_| sql.get(at + LENGTH) == Some(&b'\''))?.parse().ok()
    }

    /// As such a comment, to be put behind a statement: on a line of its own, since the last one may be a comment.
    pub fn comment(&self) -> String {
        format!("\n/*traceparent='{self}'*/")
    }
}

fn span_id() -> u64 {
    rand::random::<u64>().max(1)
}

impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

impl FromStr for SpanContext {
    type Err = NoTraceparent;

    fn from_str(text: &str) -> Result<Self, NoTraceparent> {
        let is_hex = |part: &str, length| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let [version, trace, span, flags] = text.split('-').collect::<Vec<_>>()[..] else { return Err(NoTraceparent) };
        if !(is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2)) {
            return Err(NoTraceparent);
        }
        let trace_id = u128::from_str_radix(trace, 16).map_err(|_| NoTraceparent)?;
        let span_id = u64::from_str_radix(span, 16).map_err(|_| NoTraceparent)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| NoTraceparent)?;
        if trace_id == 0 || span_id == 0 {
            return Err(NoTraceparent);
        }
        Ok(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

impl Serialize for SpanContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SpanContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl TracedOperation {
    /// The first of a new trace.
    pub fn new(name: &'static str) -> Self {
        Self::with(name, SpanContext::root(), None)
    }

    /// Part of somebody else's trace.
    pub fn within(name: &'static str, parent: &SpanContext) -> Self {
        Self::with(name, parent.child(), Some(parent.span_id))
    }

    pub fn child(&self, name: &'static str) -> Self {
        Self::within(name, &self.context)
    }

    fn with(name: &'static str, context: SpanContext, parent: Option<u64>) -> Self {
        Self { name, context, parent, started: Instant::now(), error: None }
    }

    pub fn context(&self) -> &SpanContext {
        &self.context
    }

    /// The span id of the operation that it is a part of.
    pub fn parent(&self) -> Option<u64> {
        self.parent
    }

    pub fn failed(&mut self, error: impl fmt::Display) {
        self.error = Some(error.to_string());
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for TracedOperation {
    fn drop(&mut self) {
        let (operation, context, error) = (self.name, &self.context, self.error.as_deref());
        tracing::debug!(operation, %context, error, took_us = self.elapsed().as_micros() as u64, "operation ended");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_it_is() {
        let context: SpanContext = EXAMPLE.parse().unwrap();
        assert_eq!(context.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert!(context.sampled);
        assert_eq!(context.traceparent(), EXAMPLE);
        let json = serde_json::to_string(&context).unwrap();
        assert_eq!(json, format!("\"{EXAMPLE}\""));
        assert_eq!(serde_json::from_str::<SpanContext>(&json).unwrap(), context);
    }

    #[test]
    fn what_is_not_quite_one_is_none() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(text.parse::<SpanContext>(), Err(NoTraceparent), "{text}");
        }
    }

    #[test]
    fn a_comment_brings_its_context_along() {
        let sql = format!("SELECT 1 /*action='a',traceparent='{EXAMPLE}'*/");
        assert_eq!(
            SpanContext::of_comment(sql.as_bytes()).map(|context| context.traceparent()).as_deref(),
            Some(EXAMPLE)
        );
        for sql in ["SELECT 1", "SELECT 1 /*traceparent='00-x'*/", &format!("SELECT 'traceparent=''{EXAMPLE}'''")] {
            assert_eq!(SpanContext::of_comment(sql.as_bytes()), None, "{sql}");
        }
    }

    #[test]
    fn a_context_can_be_put_behind_a_statement() {
        let ours = SpanContext { trace_id: 1, span_id: 2, sampled: true };
        let told = format!("SELECT 1 -- x{}", ours.comment());
        assert_eq!(SpanContext::of_comment(told.as_bytes()), Some(ours));
    }

    #[test]
    fn a_child_shares_the_trace_and_not_the_span() {
        let parent = TracedOperation::new("query");
        let child = parent.child("upstream");
        assert_eq!(child.context().trace_id, parent.context().trace_id);
        assert_ne!(child.context().span_id, parent.context().span_id);
        assert_eq!(child.parent(), Some(parent.context().span_id));
        let remote: SpanContext = EXAMPLE.parse().unwrap();
        assert_eq!(TracedOperation::within("query", &remote).context().trace_id, remote.trace_id);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}", tail in "[0-9a-f-]{0,60}") {
            let _ = text.parse::<SpanContext>();
            let _ = SpanContext::of_comment(format!("/*traceparent='{tail}{text}").as_bytes());
        }
    }
}
