//! The analyses that a session has used last, found without hashing anything.
//!
//! **Invariant.** A slot answers only for the very statement, types, settings and epoch that it was filled for. It holds its
//! statement, so no other can have the same address.

use std::sync::Arc;

use crate::catalog::Database;
use crate::catalog::analysis::{Analysis, AnalysisKey};
use crate::statement::Statement;

/// Slots per session, chosen by the statement's address.
const SLOTS: usize = 8;

#[derive(Debug, Default)]
pub struct KnownAnalyses(Vec<Option<Slot>>);

#[derive(Debug)]
struct Slot {
    statement: Arc<Statement>,
    types: Box<[u32]>,
    context: [u8; 32],
    epoch: u64,
    analysis: Arc<Analysis>,
}

impl KnownAnalyses {
    /// The analysis of a text that is one statement, if it is known. `None` for any other text.
    pub fn analysis(
        &mut self,
        database: &Database,
        statement: &Arc<Statement>,
        types: &[u32],
        context: &[u8; 32],
        epoch: u64,
    ) -> Option<Arc<Analysis>> {
        let [part] = statement.parts.as_slice() else { return None };
        if self.0.is_empty() {
            self.0.resize_with(SLOTS, || None);
        }
        let slot = &mut self.0[slot_of(statement)];
        let known = slot.as_ref().filter(|slot| {
            Arc::ptr_eq(&slot.statement, statement)
                && slot.epoch == epoch
                && *slot.types == *types
                && slot.context == *context
        });
        if let Some(known) = known {
            return Some(known.analysis.clone());
        }
        let analysis = database.analysis(&AnalysisKey::new(part, types, context, epoch))?;
        let (statement, types, context) = (statement.clone(), types.into(), *context);
        *slot = Some(Slot { statement, types, context, epoch, analysis: analysis.clone() });
        Some(analysis)
    }
}

fn slot_of(statement: &Arc<Statement>) -> usize {
    // Allocations are aligned: the low bits are always the same.
    (Arc::as_ptr(statement) as usize / align_of::<Statement>() / 4) % SLOTS
}
