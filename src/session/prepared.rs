//! The client's prepared statements and portals.
//!
//! **Invariant.** A statement in the map exists for the client: the upstream has it, or is being asked to. An unnamed one may
//! have been answered from the cache: then the upstream, which has parsed the same text for the same kind of session before, gets
//! it before anything refers to it.
//!
//! PostgreSQL refuses to execute a statement whose result has changed its shape since it was prepared, by DDL or because its names
//! mean something else under other settings (`RevalidateCachedQuery`, src/backend/utils/cache/plancache.c). What others read
//! with the same text is therefore served only to whom the upstream has answered under the same [`Standing`].

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::statement::Statement;
use crate::upstream::parsed::{Shape, StatementId};

#[derive(Debug)]
pub struct Prepared {
    pub name: Bytes,
    pub text: Bytes,
    pub types: Vec<u32>,
    pub statement: Arc<Statement>,
    /// On a shared connection it goes by this, unless it has no name.
    pub id: Option<StatementId>,
}

/// A Parse that the upstream has been sent.
#[derive(Debug)]
pub struct Asked {
    pub prepared: Arc<Prepared>,
    /// The client has it already, and does not know that it is asked for again.
    pub again: bool,
}

#[derive(Debug, Clone)]
struct Place {
    prepared: Arc<Prepared>,
    upstream: bool,
    /// Under which the upstream has parsed or executed it last, if that is known.
    standing: Option<Standing>,
    /// Of its result when the client prepared it, on a shared connection.
    shape: Option<Shape>,
}

/// What decides about the shape of a statement's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Of the catalogue.
    pub epoch: u64,
    /// Digest of the session's settings.
    pub context: [u8; 32],
}

/// A statement with its parameters.
#[derive(Debug, Clone)]
pub struct Portal {
    pub prepared: Arc<Prepared>,
    /// The body of its Bind, if what the statement does is told by its parameters, or if they are logged.
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
    pub fn sent(&mut self, prepared: Arc<Prepared>, standing: Option<Standing>) {
        if prepared.name.is_empty() || !self.statements.contains_key(&prepared.name) {
            self.statements.insert(prepared.name.clone(), Place { prepared, upstream: true, standing, shape: None });
        }
    }

    /// A Parse of the unnamed statement was answered without the upstream.
    pub fn answered(&mut self, prepared: Arc<Prepared>, standing: Option<Standing>) {
        self.statements.insert(prepared.name.clone(), Place { prepared, upstream: false, standing, shape: None });
    }

    /// The upstream has executed it.
    pub fn executed(&mut self, prepared: &Arc<Prepared>, standing: Standing) {
        if let Some(place) = self.statements.get_mut(&prepared.name)
            && Arc::ptr_eq(&place.prepared, prepared)
        {
            place.standing = Some(standing);
        }
    }

    /// What the result of a statement looks like that the client has just prepared.
    pub fn has_shape(&mut self, prepared: &Arc<Prepared>, shape: Shape) {
        if let Some(place) = self.statements.get_mut(&prepared.name)
            && Arc::ptr_eq(&place.prepared, prepared)
        {
            place.shape = Some(shape);
        }
    }

    pub fn shape(&self, name: &[u8]) -> Option<Shape> {
        self.statements.get(name)?.shape
    }

    pub fn standing(&self, name: &[u8]) -> Option<Standing> {
        self.statements.get(name)?.standing
    }

    /// The upstream did not take this Parse.
    pub fn refused(&mut self, asked: &Asked) {
        let prepared = &asked.prepared;
        let is_it = |place: &&mut Place| Arc::ptr_eq(&place.prepared, prepared);
        let Some(place) = self.statements.get_mut(&prepared.name).filter(is_it) else { return };
        if asked.again {
            place.upstream = false;
        } else {
            self.statements.remove(&prepared.name);
        }
    }

    /// The session has moved to another connection, or its statements were dropped from this one.
    pub fn move_out(&mut self) {
        self.statements.values_mut().for_each(|place| place.upstream = false);
    }

    /// None of the named statements is upstream under its own name.
    pub fn move_out_named(&mut self) {
        self.statements.iter_mut().filter(|(name, _)| !name.is_empty()).for_each(|(_, place)| place.upstream = false);
    }

    pub fn has_named(&self) -> bool {
        self.statements.keys().any(|name| !name.is_empty())
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

    /// All named statements that the upstream does not have under these names. From now on they count as sent.
    pub fn take_all_unsent(&mut self) -> Vec<Arc<Prepared>> {
        let unsent = self.statements.values_mut().filter(|place| !place.upstream && !place.prepared.name.is_empty());
        let take = |place: &mut Place| {
            place.upstream = true;
            place.prepared.clone()
        };
        unsent.map(take).collect()
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
