//! What the cache does for each shape of statement: hits, what they saved, what the others cost, and why they were none.
//!
//! **Invariant.** The ledger holds at most as many shapes as it was made for, those that are used most; one that has to go takes
//! its figures with it. A shape is kept as its normal form with every literal left out, so no value that a client has sent is in
//! here. Nobody waits for anybody: figures are added to without a lock, and a session remembers where it has added last.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use quick_cache::sync::Cache;

use super::verdict::Bypass;
use crate::statement::{Class, Part, Statement, shape_text};

/// Bytes of a text that are kept.
const SHOWN_BYTES: usize = 1000;

/// Pages that a session remembers, chosen by the statement's address.
const SLOTS: usize = 8;

/// A session looks a page up again after so many uses: it may have left the ledger, and the ledger sees that it is used.
const USES: u8 = 64;

pub struct Ledger {
    /// `None` if no shape is to be kept.
    pages: Option<Cache<[u8; 32], Arc<Page>>>,
}

/// One shape's figures. Aligned so that two of them do not share a cache line.
#[derive(Debug)]
#[repr(align(64))]
pub struct Page {
    hits: AtomicU64,
    bytes: AtomicU64,
    saved_micros: AtomicU64,
    runs: AtomicU64,
    run_micros: AtomicU64,
    bypasses: AtomicU64,
    /// A [`Bypass`] and one; 0 for none.
    reason: AtomicU8,
    pub id: ShapeId,
    pub text: Box<str>,
    /// By its text it only reads.
    pub is_read: bool,
}

/// The first bytes of a shape's digest, which stand for it towards people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ShapeId(u64);

/// The figures at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Answers from the cache, their bytes, and the upstream time that they have saved.
    pub hits: u64,
    pub bytes: u64,
    pub saved: Duration,
    /// Answers of the upstream, and the time that they took.
    pub runs: u64,
    pub run_time: Duration,
    /// Those of them for which the cache was not asked, and the last lasting reason.
    pub bypasses: u64,
    pub reason: Option<Bypass>,
}

/// The pages that a session has used last.
#[derive(Debug, Default)]
pub struct Bookmarks(Vec<Option<Bookmark>>);

#[derive(Debug)]
struct Bookmark {
    /// Held weakly: no other statement can have its address, but one that comes only once is not kept either.
    statement: Weak<Statement>,
    page: Arc<Page>,
    uses: u8,
}

impl Ledger {
    pub fn new(shapes: usize) -> Self {
        Self { pages: (shapes > 0).then(|| Cache::new(shapes)) }
    }

    /// Every page.
    pub fn pages(&self) -> Vec<Arc<Page>> {
        self.pages.iter().flat_map(|pages| pages.iter().map(|(_, page)| page)).collect()
    }

    fn page(&self, part: &Part, text: &[u8]) -> Option<Arc<Page>> {
        let pages = self.pages.as_ref()?;
        if let Some(page) = pages.get(&part.shape) {
            return Some(page);
        }
        let text = shape_text(part.text_of(text), SHOWN_BYTES);
        let page = Arc::new(Page::new(ShapeId::of(&part.shape), text, part.class == Class::Read));
        pages.insert(part.shape, page.clone());
        Some(page)
    }
}

impl Bookmarks {
    /// The page of a text that is one statement; `None` for others, and if no shapes are kept.
    pub fn page(&mut self, ledger: &Ledger, statement: &Arc<Statement>, text: &[u8]) -> Option<&Arc<Page>> {
        let [part] = statement.parts.as_slice() else { return None };
        if self.0.is_empty() {
            self.0.resize_with(SLOTS, || None);
        }
        // Allocations are aligned: the low bits are always the same.
        let slot = &mut self.0[(Arc::as_ptr(statement) as usize >> 6) % SLOTS];
        let known =
            slot.as_ref().is_some_and(|mark| mark.uses < USES && mark.statement.as_ptr() == Arc::as_ptr(statement));
        if !known {
            let page = ledger.page(part, text)?;
            *slot = Some(Bookmark { statement: Arc::downgrade(statement), page, uses: 0 });
        }
        let mark = slot.as_mut()?;
        mark.uses += 1;
        Some(&mark.page)
    }
}

impl Page {
    fn new(id: ShapeId, text: String, is_read: bool) -> Self {
        let zero = AtomicU64::default;
        Self {
            hits: zero(),
            bytes: zero(),
            saved_micros: zero(),
            runs: zero(),
            run_micros: zero(),
            bypasses: zero(),
            reason: AtomicU8::new(0),
            id,
            text: text.into(),
            is_read,
        }
    }

    /// The cache has answered with so many bytes what takes the upstream so long.
    pub fn hit(&self, bytes: usize, cost: Duration) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.saved_micros.fetch_add(micros(cost), Ordering::Relaxed);
    }

    /// The upstream has answered.
    pub fn ran(&self, took: Duration) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.run_micros.fetch_add(micros(took), Ordering::Relaxed);
    }

    /// The cache is not asked.
    pub fn bypassed(&self, reason: Bypass) {
        self.bypasses.fetch_add(1, Ordering::Relaxed);
        if !reason.is_passing() && reason != Bypass::InFlight {
            self.reason.store(reason as u8 + 1, Ordering::Relaxed);
        }
    }

    /// The same where nobody has looked for a better reason.
    pub fn bypassed_by_form(&self, reason: Bypass) {
        // Two sessions at once: either one will do.
        let _ = self.reason.compare_exchange(0, reason as u8 + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The cache is asked: what was in the way is not any more.
    pub fn asked(&self) {
        if self.reason.load(Ordering::Relaxed) != 0 {
            self.reason.store(0, Ordering::Relaxed);
        }
    }

    pub fn figures(&self) -> Figures {
        let value = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let reason = self.reason.load(Ordering::Relaxed).checked_sub(1);
        Figures {
            hits: value(&self.hits),
            bytes: value(&self.bytes),
            saved: Duration::from_micros(value(&self.saved_micros)),
            runs: value(&self.runs),
            run_time: Duration::from_micros(value(&self.run_micros)),
            bypasses: value(&self.bypasses),
            reason: reason.and_then(|number| Bypass::ALL.get(usize::from(number)).copied()),
        }
    }
}

impl ShapeId {
    pub fn of(shape: &[u8; 32]) -> Self {
        Self(shape.first_chunk().map_or(0, |first| u64::from_be_bytes(*first)))
    }

    /// What [`Display`](std::fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl std::fmt::Display for ShapeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str) -> Arc<Statement> {
        Arc::new(Statement::analyse(text.as_bytes()))
    }

    fn page(ledger: &Ledger, text: &str) -> Arc<Page> {
        Bookmarks::default().page(ledger, &statement(text), text.as_bytes()).expect("one statement").clone()
    }

    #[test]
    fn statements_that_differ_in_their_literals_share_a_page_that_holds_none_of_them() {
        let ledger = Ledger::new(10);
        let (one, other) = (
            page(&ledger, "SELECT v FROM t WHERE k = 'secret'"),
            page(&ledger, "/* x */ select v from T where k = 'b'"),
        );
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(&*one.text, "select v from t where k = ?");
        one.hit(100, Duration::from_millis(3));
        one.ran(Duration::from_millis(4));
        let figures = other.figures();
        assert_eq!((figures.hits, figures.bytes, figures.saved), (1, 100, Duration::from_millis(3)));
        assert_eq!((figures.runs, figures.run_time), (1, Duration::from_millis(4)));
        assert_eq!(ShapeId::parse(&one.id.to_string()), Some(one.id));
        assert_eq!(ShapeId::parse("x"), None);
    }

    #[test]
    fn the_ledger_is_bounded_and_what_is_used_stays() {
        let ledger = Ledger::new(50);
        let (text, used) = ("SELECT a FROM used", statement("SELECT a FROM used"));
        let mut bookmarks = Bookmarks::default();
        for number in 0..2000 {
            let other = format!("SELECT a FROM t{number}");
            Bookmarks::default().page(&ledger, &statement(&other), other.as_bytes());
            bookmarks.page(&ledger, &used, text.as_bytes()).expect("one statement").hit(1, Duration::ZERO);
        }
        assert!(ledger.pages().len() <= 50);
        let hits = page(&ledger, text).figures().hits;
        assert!(hits > 1000, "{hits} of 2000 hits");
    }

    #[test]
    fn a_session_adds_to_the_page_that_is_in_the_ledger() {
        let ledger = Ledger::new(10);
        let (text, used) = ("SELECT a FROM used", statement("SELECT a FROM used"));
        let mut bookmarks = Bookmarks::default();
        bookmarks.page(&ledger, &used, text.as_bytes());
        if let Some(pages) = &ledger.pages {
            pages.retain(|_, _| false);
        }
        for _ in 0..=USES {
            bookmarks.page(&ledger, &used, text.as_bytes()).expect("one statement").hit(1, Duration::ZERO);
        }
        assert!(page(&ledger, text).figures().hits > 0);
    }

    #[test]
    fn the_last_lasting_reason_is_kept_until_the_cache_is_asked() {
        let ledger = Ledger::new(10);
        let page = page(&ledger, "SELECT 1 FROM t");
        page.bypassed(Bypass::Undecided);
        assert_eq!(page.figures().reason, None);
        page.bypassed(Bypass::RowSecurity);
        page.bypassed(Bypass::InFlight);
        page.bypassed_by_form(Bypass::Shape);
        let figures = page.figures();
        assert_eq!((figures.reason, figures.bypasses), (Some(Bypass::RowSecurity), 3));
        page.asked();
        assert_eq!(page.figures().reason, None);
    }

    #[test]
    fn many_statements_or_none_have_no_page_and_no_shapes_may_be_kept() {
        let none = |ledger: &Ledger, text: &str| {
            Bookmarks::default().page(ledger, &statement(text), text.as_bytes()).is_none()
        };
        let ledger = Ledger::new(10);
        assert!(none(&ledger, "SELECT 1; SELECT 2") && none(&ledger, "") && none(&Ledger::new(0), "SELECT 1"));
    }
}
