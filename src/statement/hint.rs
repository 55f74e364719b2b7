//! What a comment in front of a statement asks of the proxy: `/* helios: ttl=60 */`, `/* helios: nocache */`,
//! `/* helios: parallel=4 */`, `/* helios: noparallel */`.
//!
//! A hint belongs to the text and not to its normal form: texts that differ in their hints alone share entries.

use std::time::Duration;

use super::lexer;

const PREFIX: &[u8] = b"helios:";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hint {
    /// How old an answer may be.
    pub ttl: Option<Duration>,
    /// Neither answer from the cache nor record.
    pub nocache: bool,
    /// Connections that may work on it at once; 1 for no split.
    pub parallel: Option<u16>,
}

impl Hint {
    /// The hints in the block comments of `gap`, the part of a text before its first token. The last of a kind counts.
    pub(super) fn of(gap: &[u8]) -> Self {
        let mut hint = Self::default();
        for comment in lexer::block_comments(gap) {
            let comment = comment.trim_ascii();
            if let Some((prefix, words)) = comment.split_at_checked(PREFIX.len())
                && prefix.eq_ignore_ascii_case(PREFIX)
            {
                for word in words.split(|byte| byte.is_ascii_whitespace() || *byte == b',') {
                    hint.take(word);
                }
            }
        }
        hint
    }

    fn take(&mut self, word: &[u8]) {
        match word {
            b"" => {}
            b"nocache" => self.nocache = true,
            b"noparallel" => self.parallel = Some(1),
            _ if word.starts_with(b"parallel=") => match number(&word[b"parallel=".len()..]) {
                Some(degree) => self.parallel = Some(degree),
                None => ignore(word),
            },
            _ => match word.strip_prefix(b"ttl=").and_then(seconds) {
                // Nothing is younger than that.
                Some(0) => self.nocache = true,
                Some(seconds) => self.ttl = Some(Duration::from_secs(seconds)),
                None => ignore(word),
            },
        }
    }
}

fn ignore(word: &[u8]) {
    tracing::debug!(word = %word.escape_ascii(), "unknown word in a hint, ignored");
}

/// 1 or more.
fn number(digits: &[u8]) -> Option<u16> {
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|&number| number > 0)
}

fn seconds(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse::<u32>().ok().map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::{Statement, Statements};

    fn hint(text: &str) -> (Option<u64>, bool) {
        let hint = Statement::analyse(text.as_bytes()).hint;
        (hint.ttl.map(|ttl| ttl.as_secs()), hint.nocache)
    }

    #[test]
    fn hints_stand_in_leading_comments() {
        assert_eq!(hint("/* helios: ttl=60 */ SELECT 1"), (Some(60), false));
        assert_eq!(hint("/*helios:ttl=60*/SELECT 1"), (Some(60), false));
        assert_eq!(hint(" -- x\n/* other */ /* Helios: nocache */ SELECT 1"), (None, true));
        assert_eq!(hint("/* helios: ttl=60 nocache */ SELECT 1"), (Some(60), true));
        assert_eq!(hint("/* helios: ttl=60, ttl=5 */ SELECT 1"), (Some(5), false));
        assert_eq!(hint("/* helios: ttl=0 */ SELECT 1"), (None, true));
        for text in [
            "SELECT 1",
            "SELECT 1 /* helios: nocache */",
            "SELECT /* helios: nocache */ 1",
            "SELECT '/* helios: nocache */'",
            "-- /* helios: nocache */\nSELECT 1",
            "/* /* helios: nocache */ */ SELECT 1",
            "/* helios nocache */ SELECT 1",
            "/* the helios: nocache */ SELECT 1",
            "/* helios: */ SELECT 1",
            "/* helios: no-cache ttl=x ttl= ttl=-1 ttl=99999999999 ttl */ SELECT 1",
        ] {
            assert_eq!(hint(text), (None, false), "{text}");
        }
    }

    #[test]
    fn a_hint_says_how_many_connections_may_work_on_it() {
        let parallel = |text: &str| Statement::analyse(text.as_bytes()).hint.parallel;
        assert_eq!(parallel("/* helios: parallel=4 */ SELECT 1"), Some(4));
        assert_eq!(parallel("/* helios: nocache noparallel */ SELECT 1"), Some(1));
        for text in [
            "SELECT 1",
            "/* helios: parallel=0 parallel= parallel=x parallel */ SELECT 1",
            "SELECT /* helios: noparallel */ 1",
        ] {
            assert_eq!(parallel(text), None, "{text}");
        }
    }

    #[test]
    fn a_hint_changes_neither_key_nor_shape_and_is_not_lost_in_the_memo() {
        let statements = Statements::new();
        let texts = ["SELECT 1", "/* helios: ttl=60 */ SELECT 1", "/* helios: nocache */ SELECT 1"];
        for _ in 0..2 {
            let [plain, ttl, nocache] = texts.map(|text| statements.get(text.as_bytes()));
            assert_eq!((plain.digest, plain.parts[0].shape), (ttl.digest, ttl.parts[0].shape));
            assert_eq!(plain.digest, nocache.digest);
            assert_eq!(plain.hint, Hint::default());
            assert_eq!(ttl.hint.ttl, Some(Duration::from_secs(60)));
            assert!(nocache.hint.nocache && !ttl.hint.nocache);
        }
    }
}
