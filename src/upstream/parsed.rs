//! The statements that the proxy has prepared on one connection, under names of its own.
//!
//! **Invariant.** What is listed is there, or has been asked for; what is doubtful is not listed. A name tells the statement, so
//! preparing one again that is there after all needs a Close before it, which is always sent.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::wire::frame::backend;
use crate::wire::message::backend::row_description;

/// What is prepared: text, parameter types, and the settings and catalogue under which it is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatementId(pub [u8; 16]);

/// The columns of a statement's result: names, types and their modifiers. What PostgreSQL compares before it executes a statement
/// that was prepared before something changed (`equalTupleDescs` in `RevalidateCachedQuery`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape([u8; 16]);

#[derive(Debug, Default)]
pub struct Parsed {
    statements: HashMap<StatementId, Known>,
    clock: u64,
}

/// What is known of a statement that is there.
#[derive(Debug)]
struct Known {
    used: u64,
    /// `None` until the server has said it.
    shape: Option<Shape>,
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

impl Shape {
    /// Of the server's answer to a Describe: RowDescription or NoData. `None` if it is neither.
    pub fn of(tag: u8, body: &[u8]) -> Option<Self> {
        let mut hasher = Sha256::new();
        match tag {
            backend::NO_DATA => {}
            backend::ROW_DESCRIPTION => {
                for column in row_description(body).ok()? {
                    hasher.update((column.name.len() as u64).to_be_bytes());
                    hasher.update(column.name);
                    hasher.update(column.type_oid.to_be_bytes());
                    hasher.update(column.type_modifier.to_be_bytes());
                }
            }
            _ => return None,
        }
        let digest: [u8; 32] = hasher.finalize().into();
        digest.first_chunk().copied().map(Self)
    }
}

impl Parsed {
    /// Whether it is there. If so it counts as used.
    pub fn uses(&mut self, id: StatementId) -> bool {
        self.clock += 1;
        let clock = self.clock;
        self.statements.get_mut(&id).map(|known| known.used = clock).is_some()
    }

    pub fn add(&mut self, id: StatementId) {
        self.clock += 1;
        self.statements.insert(id, Known { used: self.clock, shape: None });
    }

    /// The server has said what the statement's result looks like.
    pub fn has_shape(&mut self, id: StatementId, shape: Shape) {
        if let Some(known) = self.statements.get_mut(&id) {
            known.shape = Some(shape);
        }
    }

    /// The shape of the result of a statement that is there, if it is known yet.
    pub fn shape(&self, id: StatementId) -> Option<Shape> {
        self.statements.get(&id)?.shape
    }

    pub fn remove(&mut self, id: StatementId) {
        self.statements.remove(&id);
    }

    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    pub fn clear(&mut self) {
        self.statements.clear();
    }

    /// If there are more than `limit`: takes the longest unused ones out, and some more, so that this is rare.
    pub fn trim(&mut self, limit: usize) -> Vec<StatementId> {
        if self.statements.len() <= limit {
            return Vec::new();
        }
        let mut all: Vec<_> = self.statements.iter().map(|(id, known)| (known.used, *id)).collect();
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
    fn a_shape_is_names_types_and_modifiers() {
        let described = |name: &[u8], table: u32, type_oid: u32, modifier: i32| {
            let mut body = 1_i16.to_be_bytes().to_vec();
            body.extend(name);
            body.push(0);
            body.extend(table.to_be_bytes());
            body.extend(1_i16.to_be_bytes());
            body.extend(type_oid.to_be_bytes());
            body.extend(4_i16.to_be_bytes());
            body.extend(modifier.to_be_bytes());
            body.extend(0_i16.to_be_bytes());
            Shape::of(backend::ROW_DESCRIPTION, &body).unwrap()
        };
        let one = described(b"a", 1, 23, -1);
        assert_eq!(one, described(b"a", 2, 23, -1), "another table with such columns");
        assert_ne!(one, described(b"b", 1, 23, -1));
        assert_ne!(one, described(b"a", 1, 20, -1));
        assert_ne!(one, described(b"a", 1, 23, 8));
        assert_ne!(Some(one), Shape::of(backend::NO_DATA, b""));
        assert_eq!(Shape::of(backend::ROW_DESCRIPTION, b"\0\x01a"), None);
        assert_eq!(Shape::of(backend::PARSE_COMPLETE, b""), None);
    }

    #[test]
    fn different_statements_have_different_names() {
        assert_eq!(&id(0x1f).name()[..8], b"hlp_1f1f");
        assert_ne!(id(1).name(), id(16).name());
    }
}
