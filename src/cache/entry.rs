//! A recorded result: the frames of one successful read, as they came from the upstream.

use std::time::Duration;

use bytes::Bytes;

use super::ledger::ShapeId;
use super::versions::Dependencies;
use crate::wire::frame::backend;

/// Milliseconds since the cache was made.
pub type Millis = u64;

/// Bytes that an allocation of `bytes` takes: the allocator of the C library rounds it and its own header up to 16.
pub fn allocated(bytes: usize) -> usize {
    const HEADER: usize = 8;
    if bytes == 0 { 0 } else { (bytes + HEADER).next_multiple_of(16).max(32) }
}

#[derive(Debug)]
pub struct Entry {
    /// RowDescription (if it was asked for), DataRows, CommandComplete.
    frames: Bytes,
    /// Length of the RowDescription at the front of `frames`; 0 if there is none.
    description: usize,
    dependencies: Dependencies,
    filled: Millis,
    expires: Millis,
    /// Upstream time that a hit saves.
    cost: Duration,
    origin: Origin,
}

/// What a result is the answer of, and when that was asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin {
    pub shape: ShapeId,
    /// How often the store had been flushed by then.
    pub flushes: u64,
}

impl Entry {
    pub fn new(
        recording: Recording,
        dependencies: Dependencies,
        now: Millis,
        ttl: Duration,
        cost: Duration,
    ) -> Option<Self> {
        let description = recording.description;
        let frames = recording.finish()?;
        Some(Self {
            frames,
            description,
            dependencies,
            filled: now,
            expires: now.saturating_add(ttl.as_millis() as u64),
            cost,
            origin: Origin::default(),
        })
    }

    #[must_use]
    pub fn from(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether a RowDescription is part of it.
    pub fn is_described(&self) -> bool {
        self.description > 0
    }

    /// The recorded frames, from the RowDescription on if there is one and it is asked for.
    pub fn frames(&self, described: bool) -> &[u8] {
        &self.frames[self.first(described)..]
    }

    /// The same, to be kept.
    pub fn shared_frames(&self, described: bool) -> Bytes {
        self.frames.slice(self.first(described)..)
    }

    fn first(&self, described: bool) -> usize {
        if described { 0 } else { self.description }
    }

    /// How many columns the result has, as far as its first frame tells: a RowDescription or a DataRow begins with it.
    pub fn columns(&self) -> Option<usize> {
        let (tag, count) = (self.frames.first()?, self.frames.get(5..)?.first_chunk::<2>()?);
        matches!(*tag, backend::ROW_DESCRIPTION | backend::DATA_ROW).then(|| usize::from(u16::from_be_bytes(*count)))
    }

    pub fn expired(&self, now: Millis) -> bool {
        now >= self.expires
    }

    /// When it expires, whether it is used or not.
    pub fn expires(&self) -> Millis {
        self.expires
    }

    /// How long ago it was filled.
    pub fn age(&self, now: Millis) -> Duration {
        Duration::from_millis(now.saturating_sub(self.filled))
    }

    /// Whether an entry that has not expired is younger than `ttl`.
    pub fn is_younger(&self, ttl: Duration, now: impl FnOnce() -> Millis) -> bool {
        let ttl = ttl.as_millis() as u64;
        self.expires - self.filled <= ttl || now().saturating_sub(self.filled) < ttl
    }

    pub fn valid(&self) -> bool {
        self.dependencies.hold()
    }

    /// What it takes of the heap, as the allocator counts: itself behind the two counters of its `Arc`, its frames, the
    /// counter that they get when they are first shared, and its dependencies.
    pub fn bytes(&self) -> usize {
        const ARC_COUNTERS: usize = 2 * size_of::<usize>();
        const SHARED_FRAMES: usize = 3 * size_of::<usize>();
        let own = allocated(ARC_COUNTERS + size_of::<Self>()) + allocated(SHARED_FRAMES);
        own + allocated(self.frames.len()) + allocated(self.dependencies.bytes())
    }

    pub fn cost(&self) -> Duration {
        self.cost
    }
}

/// Frames of a read while they pass, up to a bound. Anything but one RowDescription, DataRows and one `SELECT`
/// CommandComplete spoils it: errors, notices, partial results, COPY and function calls are never recorded.
#[derive(Debug)]
pub struct Recording {
    frames: Vec<u8>,
    description: usize,
    limit: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    Rows,
    Complete,
    Spoilt,
}

impl Recording {
    pub fn new(limit: usize) -> Self {
        Self { frames: Vec::new(), description: 0, limit, state: State::Empty }
    }

    /// Takes note of a frame of the result by its type; the bytes follow through [`extend`](Self::extend).
    pub fn frame(&mut self, tag: u8, total: usize) {
        self.state = match (self.state, tag) {
            (State::Empty, backend::ROW_DESCRIPTION) if self.description == 0 => {
                self.description = total;
                State::Empty
            }
            (State::Empty | State::Rows, backend::DATA_ROW) => State::Rows,
            (State::Empty | State::Rows, backend::COMMAND_COMPLETE) => State::Complete,
            _ => State::Spoilt,
        };
        if self.frames.len() + total > self.limit {
            self.state = State::Spoilt;
        }
        if self.state == State::Spoilt {
            self.frames = Vec::new();
        }
    }

    /// Bytes of frames that were announced, in order.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.state != State::Spoilt {
            self.frames.extend_from_slice(bytes);
        }
    }

    /// Whole rows, or parts of them that follow each other.
    pub fn rows(&mut self, bytes: &[u8]) {
        self.frame(backend::DATA_ROW, bytes.len());
        self.extend(bytes);
    }

    pub fn spoil(&mut self) {
        self.state = State::Spoilt;
        self.frames = Vec::new();
    }

    pub fn is_spoilt(&self) -> bool {
        self.state == State::Spoilt
    }

    fn finish(self) -> Option<Bytes> {
        (self.state == State::Complete).then(|| Bytes::from(self.frames.into_boxed_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::versions::Versions;

    fn entry(tags: &[(u8, &[u8])], limit: usize) -> Option<Entry> {
        let mut recording = Recording::new(limit);
        for (tag, bytes) in tags {
            recording.frame(*tag, bytes.len());
            recording.extend(bytes);
        }
        let dependencies = Versions::default().observe([]).expect("nothing is in flight");
        Entry::new(recording, dependencies, 0, Duration::from_secs(1), Duration::ZERO)
    }

    #[test]
    fn a_whole_result_becomes_an_entry() {
        let entry = entry(&[(b'T', b"TTT"), (b'D', b"DD"), (b'D', b"dd"), (b'C', b"C")], 100).expect("whole");
        assert!(entry.is_described());
        assert_eq!(entry.frames(true), b"TTTDDddC");
        assert_eq!(entry.frames(false), b"DDddC");
        assert_eq!(entry.shared_frames(false), entry.frames(false));
        let row = |frame: &[u8]| self::entry(&[(frame[0], frame), (b'C', b"C")], 100).expect("whole").columns();
        assert_eq!(row(b"D\0\0\0\x06\0\x03"), Some(3));
        assert_eq!(row(b"T\0\0\0\x06\0\x02"), Some(2));
        assert!(!entry.expired(999) && entry.expired(1000));
        let younger = |ttl, now| entry.is_younger(Duration::from_millis(ttl), || now);
        assert!(younger(1000, 999) && younger(5000, 999) && younger(500, 499) && !younger(500, 500));
    }

    #[test]
    fn partial_failed_noticed_or_large_results_do_not() {
        for frames in [
            &[(b'T', &b"T"[..]), (b'D', b"D")][..],
            &[(b'T', b"T"), (b'D', b"D"), (b's', b"s")],
            &[(b'T', b"T"), (b'E', b"E")],
            &[(b'T', b"T"), (b'N', b"N"), (b'C', b"C")],
            &[(b'T', b"T"), (b'C', b"C"), (b'T', b"T"), (b'C', b"C")],
            &[(b'D', &[0; 101]), (b'C', b"C")],
        ] {
            assert!(entry(frames, 100).is_none(), "{frames:?}");
        }
    }
}
