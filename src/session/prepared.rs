//! The client's prepared statements and portals.
//!
//! **Invariant.** A statement in the map exists for the client: the upstream has it, or is being asked to, or has parsed the
//! same text for the same kind of session before (it was answered from the cache) and gets it before anything refers to it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::statement::Statement;

#[derive(Debug)]
pub struct Prepared {
    pub name: Bytes,
    pub text: Bytes,
    pub types: Vec<u32>,
    pub statement: Arc<Statement>,
}

#[derive(Debug, Clone)]
struct Place {
    prepared: Arc<Prepared>,
    upstream: bool,
}

/// A statement with its parameters.
#[derive(Debug, Clone)]
pub struct Portal {
    pub prepared: Arc<Prepared>,
    /// The body of its Bind, if what the statement does is told by its parameters.
    pub bind: Option<Bytes>,
    /// Digest of the settings that it was bound under, which say what its names mean for as long as it lives. `None` if they
    /// were not known.
    pub context: Option<[u8; 32]>,
}

#[derive(Debug, Default)]
pub struct PreparedStatements {
    statements: HashMap<Bytes, Place>,
    portals: HashMap<Bytes, Option<Portal>>,
}

impl PreparedStatements {
    /// A Parse is being sent upstream. A name that is taken stays what it is: the upstream will refuse.
    pub fn sent(&mut self, prepared: Arc<Prepared>) {
        if prepared.name.is_empty() || !self.statements.contains_key(&prepared.name) {
            self.statements.insert(prepared.name.clone(), Place { prepared, upstream: true });
        }
    }

    /// A Parse was answered without the upstream.
    pub fn answered(&mut self, prepared: Arc<Prepared>) {
        self.statements.insert(prepared.name.clone(), Place { prepared, upstream: false });
    }

    /// The upstream did not take this Parse.
    pub fn refused(&mut self, prepared: &Arc<Prepared>) {
        if self.statements.get(&prepared.name).is_some_and(|place| Arc::ptr_eq(&place.prepared, prepared)) {
            self.statements.remove(&prepared.name);
        }
    }

    /// A named statement of this name exists: another Parse of it would be refused.
    pub fn is_taken(&self, name: &[u8]) -> bool {
        !name.is_empty() && self.statements.contains_key(name)
    }

    pub fn get(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        self.statements.get(name).map(|place| &place.prepared)
    }

    /// The statement, if the upstream does not have it yet. From now on it counts as sent.
    pub fn take_unsent(&mut self, name: &[u8]) -> Option<Arc<Prepared>> {
        let place = self.statements.get_mut(name).filter(|place| !place.upstream)?;
        place.upstream = true;
        Some(place.prepared.clone())
    }

    /// All named statements that the upstream does not have yet. From now on they count as sent.
    pub fn take_all_unsent(&mut self) -> Vec<Arc<Prepared>> {
        let unsent = self.statements.values_mut().filter(|place| !place.upstream && !place.prepared.name.is_empty());
        unsent
            .map(|place| {
                place.upstream = true;
                place.prepared.clone()
            })
            .collect()
    }

    pub fn forget(&mut self, name: &[u8]) {
        self.statements.remove(name);
    }

    /// DEALLOCATE names it, or ALL.
    pub fn deallocate(&mut self, mentioned: impl Fn(&[u8]) -> bool) {
        if mentioned(b"all") {
            self.statements.clear();
        } else {
            self.statements.retain(|name, _| !mentioned(name));
        }
    }

    /// `None` if the portal's statement is not known.
    pub fn bind(&mut self, name: Bytes, portal: Option<Portal>) {
        self.portals.insert(name, portal);
    }

    /// `None` if the portal or its statement is not known.
    pub fn portal(&self, name: &[u8]) -> Option<&Portal> {
        self.portals.get(name)?.as_ref()
    }

    /// Portals end with their transaction.
    pub fn end_portals(&mut self) {
        self.portals.clear();
    }
}
