//! The statements that the proxy has prepared on one connection, under names of its own.
//!
//! **Invariant.** What is listed is there, or has been asked for; what is doubtful is not listed. A name tells the statement, so
//! preparing one again that is there after all needs a Close before it, which is always sent.

use std::collections::HashMap;

/// What is prepared: text, parameter types, and the settings and catalogue under which it is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatementId(pub [u8; 16]);

#[derive(Debug, Default)]
pub struct Parsed {
    /// By the time of last use.
    used: HashMap<StatementId, u64>,
    clock: u64,
}

impl StatementId {
    /// The name that it has on every connection.
    pub fn name(&self) -> [u8; 36] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut name = *b"hlp_00000000000000000000000000000000";
        for (place, byte) in name[4..].chunks_exact_mut(2).zip(self.0) {
            place[0] = DIGITS[usize::from(byte >> 4)];
            place[1] = DIGITS[usize::from(byte & 15)];
        }
        name
    }
}

impl Parsed {
    /// Whether it is there. If so it counts as used.
    pub fn uses(&mut self, id: StatementId) -> bool {
        self.clock += 1;
        let clock = self.clock;
        self.used.get_mut(&id).map(|used| *used = clock).is_some()
    }

    pub fn add(&mut self, id: StatementId) {
        self.clock += 1;
        self.used.insert(id, self.clock);
    }

    pub fn remove(&mut self, id: StatementId) {
        self.used.remove(&id);
    }

    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    pub fn clear(&mut self) {
        self.used.clear();
    }

    /// If there are more than `limit`: takes the longest unused ones out, and some more, so that this is rare.
    pub fn trim(&mut self, limit: usize) -> Vec<StatementId> {
        if self.used.len() <= limit {
            return Vec::new();
        }
        let mut all: Vec<_> = self.used.iter().map(|(id, used)| (*used, *id)).collect();
        all.sort_unstable_by_key(|(used, _)| *used);
        all.truncate(all.len() - (limit - limit / 8));
        let surplus: Vec<_> = all.into_iter().map(|(_, id)| id).collect();
        surplus.iter().for_each(|id| self.remove(*id));
        surplus
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> StatementId {
        StatementId([number; 16])
    }

    #[test]
    fn the_longest_unused_go_first_and_the_bound_holds() {
        let mut parsed = Parsed::default();
        (0..8).for_each(|number| parsed.add(id(number)));
        assert!(parsed.trim(8).is_empty());
        assert!(parsed.uses(id(0)));
        parsed.add(id(8));
        assert_eq!(parsed.trim(8), [id(1), id(2)]);
        assert!(parsed.trim(7).is_empty());
        assert!(parsed.uses(id(0)) && !parsed.uses(id(1)));
    }

    #[test]
    fn different_statements_have_different_names() {
        assert_eq!(&id(0x1f).name()[..8], b"hlp_1f1f");
        assert_ne!(id(1).name(), id(16).name());
    }
}
