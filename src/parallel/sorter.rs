//! Sorted rows of several connections, merged.
//!
//! **Invariant.** A row leaves when no lane can bring one that is before it: every lane has its next row here, or has ended. So what
//! leaves is sorted if what comes in each lane is. A lane never holds more than its share and one piece of what has come; its
//! share is enough for the keys of one row, or the merge fails. Nobody waits for ever: as long as the merge waits for a lane,
//! that lane has room.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, BytesMut};

use super::link::LinkError;
use super::sort_key::SortKey;
use crate::wire::frame::{self, HEADER_BYTES, backend};

/// The number of a DataRow's columns.
const COUNT_BYTES: usize = 2;
/// The length of a value; negative for NULL.
const LENGTH_BYTES: usize = 4;

/// Merges rows that come in several lanes, each sorted by the same keys. The first columns of every row are the keys, in binary;
/// they are taken off.
///
/// ```
/// use bytes::BytesMut;
/// use heliosproxy::parallel::{KeyOrder, Merged, ParallelSorter, SortDirection, SortKey};
///
/// // A DataRow of a key, an int4, and of a text.
/// fn row(key: i32, text: &str) -> Vec<u8> {
///     let values = [&key.to_be_bytes()[..], text.as_bytes()];
///     let fields = values.map(|value| [&(value.len() as u32).to_be_bytes()[..], value].concat()).concat();
///     [&b"D"[..], &(fields.len() as u32 + 6).to_be_bytes(), &2u16.to_be_bytes(), &fields].concat()
/// }
///
/// let key = SortKey { order: KeyOrder::Signed(4), direction: SortDirection::Descending, nulls_first: true };
/// let mut sorter = ParallelSorter::new(vec![key], 2, 1 << 20);
/// sorter.put(0, BytesMut::from(&[row(9, "nine"), row(3, "three")].concat()[..]));
/// sorter.put(1, BytesMut::from(&row(7, "seven")[..]));
/// sorter.finish(0);
/// sorter.finish(1);
/// let mut rows = BytesMut::new();
/// assert_eq!(sorter.merge(&mut rows, usize::MAX).unwrap(), Merged::Complete);
/// let texts: Vec<&[u8]> = rows[..].split(|byte: &u8| !byte.is_ascii_lowercase()).filter(|text| !text.is_empty()).collect();
/// assert_eq!(texts, [&b"nine"[..], b"seven", b"three"]);
/// assert_eq!(sorter.rows(), 3);
/// ```
#[derive(Debug)]
pub struct ParallelSorter {
    keys: Vec<SortKey>,
    lanes: Vec<Lane>,
    lane_bytes: usize,
    /// Rows that are left out before any is passed on, and how many are passed on then.
    skip: u64,
    left: u64,
    /// The lane whose row is not over, and how many of its bytes are to come.
    open: Option<(usize, usize)>,
    rows: u64,
}

/// How far a merge has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merged {
    /// A lane has to bring more first.
    Waiting,
    /// There is as much as was asked for.
    Full,
    /// That was the last row.
    Complete,
}

#[derive(Debug, Default)]
struct Lane {
    /// Its first one begins with the row that is next, unless that is open.
    pieces: VecDeque<BytesMut>,
    bytes: usize,
    next: Option<Next>,
    /// The code of its keys.
    code: Vec<u8>,
    finished: bool,
}

/// A row of which the keys are known.
#[derive(Debug, Clone, Copy)]
struct Next {
    total: usize,
    columns: u16,
    /// Where its keys end.
    keys_end: usize,
}

impl ParallelSorter {
    /// For so many lanes, each of which may hold about so many bytes.
    pub fn new(keys: Vec<SortKey>, lanes: usize, lane_bytes: usize) -> Self {
        let lanes = (0..lanes).map(|_| Lane::default()).collect();
        Self { keys, lanes, lane_bytes, skip: 0, left: u64::MAX, open: None, rows: 0 }
    }

    /// As OFFSET and LIMIT ask for.
    pub fn limit(mut self, offset: u64, limit: Option<u64>) -> Self {
        (self.skip, self.left) = (offset, limit.unwrap_or(u64::MAX));
        self
    }

    /// Whether a lane may bring more.
    pub fn has_room(&self, lane: usize) -> bool {
        self.lanes.get(lane).is_some_and(|lane| lane.bytes < self.lane_bytes)
    }

    /// Adds what has come in a lane: DataRow frames, which may be cut anywhere.
    pub fn put(&mut self, lane: usize, rows: BytesMut) {
        if let Some(lane) = self.lanes.get_mut(lane).filter(|_| !rows.is_empty()) {
            lane.bytes += rows.len();
            lane.pieces.push_back(rows);
        }
    }

    /// Nothing more comes in a lane.
    pub fn finish(&mut self, lane: usize) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.finished = true;
        }
    }

    /// Nobody wants them any more.
    pub fn clear(&mut self) {
        self.lanes.iter_mut().for_each(|lane| *lane = Lane { finished: true, ..Lane::default() });
        self.open = None;
    }

    /// Bytes of all lanes.
    pub fn bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }

    /// Rows that have been passed on.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of the last row that are still to come.
    pub fn open(&self) -> usize {
        self.open.filter(|_| self.skip == 0).map_or(0, |(_, bytes)| bytes)
    }

    /// Appends rows until there are about `most` bytes.
    pub fn merge(&mut self, rows: &mut BytesMut, most: usize) -> Result<Merged, LinkError> {
        loop {
            if !self.go_on(rows) {
                return Ok(Merged::Waiting);
            }
            if self.left == 0 {
                return Ok(Merged::Complete);
            }
            if rows.len() >= most {
                return Ok(Merged::Full);
            }
            if !self.look_at_all()? {
                return Ok(Merged::Waiting);
            }
            let next = self.lanes.iter().enumerate().filter(|(_, lane)| lane.next.is_some());
            let Some((lane, _)) = next.min_by(|(_, one), (_, other)| one.code.cmp(&other.code)) else {
                return Ok(Merged::Complete);
            };
            self.begin_row(lane, rows);
        }
    }

    /// Reads the keys of each lane's next row. False if one has to bring more first.
    fn look_at_all(&mut self) -> Result<bool, LinkError> {
        let mut is_all_there = true;
        for lane in self.lanes.iter_mut().filter(|lane| lane.next.is_none()) {
            lane.look(&self.keys)?;
            if lane.next.is_none() && !lane.is_over()? {
                if lane.bytes >= self.lane_bytes {
                    return Err(LinkError::Protocol("the sort keys of a row are too long to be merged"));
                }
                is_all_there = false;
            }
        }
        Ok(is_all_there)
    }

    /// The next row is this lane's.
    fn begin_row(&mut self, lane: usize, rows: &mut BytesMut) {
        let source = &mut self.lanes[lane];
        let Some(Next { total, columns, keys_end }) = source.next.take() else { return };
        if self.skip == 0 {
            let stripped = total - keys_end + HEADER_BYTES + COUNT_BYTES;
            rows.put_u8(backend::DATA_ROW);
            rows.put_u32((stripped - 1) as u32);
            rows.put_u16(columns - self.keys.len() as u16);
        }
        source.skip(keys_end);
        self.open = Some((lane, total - keys_end));
    }

    /// Passes on what is here of the row that has begun. False if there is more to come.
    fn go_on(&mut self, rows: &mut BytesMut) -> bool {
        let Some((lane, mut bytes)) = self.open else { return true };
        let lane_number = lane;
        let lane = &mut self.lanes[lane];
        while bytes > 0
            && let Some(piece) = lane.pieces.front()
        {
            let here = piece.len().min(bytes);
            if self.skip == 0 {
                rows.extend_from_slice(&piece[..here]);
            }
            lane.skip(here);
            bytes -= here;
        }
        if bytes > 0 {
            self.open = Some((lane_number, bytes));
            return false;
        }
        self.open = None;
        if self.skip > 0 {
            self.skip -= 1;
        } else {
            self.left -= 1;
            self.rows += 1;
        }
        true
    }
}

impl Lane {
    /// Nothing is left of it.
    fn is_over(&self) -> Result<bool, LinkError> {
        match (self.finished, self.bytes) {
            (false, _) => Ok(false),
            (true, 0) => Ok(true),
            (true, _) => Err(LinkError::Protocol("a row without an end")),
        }
    }

    /// Takes bytes off the front piece.
    fn skip(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if let Some(piece) = self.pieces.front_mut() {
            piece.advance(bytes);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    /// Reads the keys of the next row, if they are here.
    fn look(&mut self, keys: &[SortKey]) -> Result<(), LinkError> {
        loop {
            let Some(front) = self.pieces.front() else { return Ok(()) };
            if let Some(next) = Next::read(front, keys, &mut self.code)? {
                self.next = Some(next);
                return Ok(());
            }
            // What is missing is in the next piece.
            if self.pieces.len() < 2 {
                return Ok(());
            }
            if let (Some(mut front), Some(second)) = (self.pieces.pop_front(), self.pieces.pop_front()) {
                front.extend_from_slice(&second);
                self.pieces.push_front(front);
            }
        }
    }
}

impl Next {
    /// `None` if the keys are not here yet.
    fn read(bytes: &[u8], keys: &[SortKey], code: &mut Vec<u8>) -> Result<Option<Self>, LinkError> {
        const BROKEN: LinkError = LinkError::Protocol("a row is not what it should be");
        let Some(header) = frame::peek(bytes)? else { return Ok(None) };
        if header.tag != backend::DATA_ROW {
            return Err(BROKEN);
        }
        let Some(count) = bytes.get(HEADER_BYTES..HEADER_BYTES + COUNT_BYTES) else { return Ok(None) };
        let columns = u16::from_be_bytes([count[0], count[1]]);
        if usize::from(columns) < keys.len() {
            return Err(BROKEN);
        }
        let mut at = HEADER_BYTES + COUNT_BYTES;
        code.clear();
        for key in keys {
            let Some(length) = bytes.get(at..at + LENGTH_BYTES) else { return Ok(None) };
            at += LENGTH_BYTES;
            let length = i32::from_be_bytes([length[0], length[1], length[2], length[3]]);
            let Ok(length) = usize::try_from(length) else {
                key.push(None, code)?;
                continue;
            };
            if at + length > header.total {
                return Err(BROKEN);
            }
            let Some(value) = bytes.get(at..at + length) else { return Ok(None) };
            key.push(Some(value), code)?;
            at += length;
        }
        if at > header.total {
            return Err(BROKEN);
        }
        Ok(Some(Self { total: header.total, columns, keys_end: at }))
    }
}

#[cfg(test)]
mod tests;
