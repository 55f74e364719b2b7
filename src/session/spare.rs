//! Buffers that nobody has bytes in.
//!
//! **Invariant.** A session has buffers of its own only while it runs or has bytes in them: whenever it waits, those that are empty go
//! back to its thread, where the next session to run finds them, still warm. So a client that does nothing costs no buffer, one
//! that waits for its turn not much more than its request, and one that runs finds a buffer without asking the allocator.

use std::cell::RefCell;

use bytes::BytesMut;

/// How many a thread keeps.
const MOST: usize = 64;
/// What fills less than this part of a buffer needs none of that size.
const LITTLE: usize = 8;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Fills an empty place with a spare buffer, if there is one.
pub fn equip(place: &mut BytesMut) {
    if place.capacity() == 0
        && let Some(buffer) = SPARE.with_borrow_mut(Vec::pop)
    {
        *place = buffer;
    }
}

/// Takes a buffer that nothing is in out of its place, and one with little in it, which gets a smaller one. Those of the usual size,
/// between `least` bytes and four times as many, are kept.
pub fn strip(place: &mut BytesMut, least: usize) {
    let has_little_room = place.capacity() < least / LITTLE && !place.is_empty();
    if place.capacity() == 0 || has_little_room || place.len() > least / LITTLE {
        return;
    }
    let rest = if place.is_empty() { BytesMut::new() } else { BytesMut::from(&place[..]) };
    let mut buffer = std::mem::replace(place, rest);
    buffer.clear();
    // What was taken from its front is room again.
    if buffer.try_reclaim(least) && buffer.capacity() <= 4 * least {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST {
                spare.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    fn spare() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    #[test]
    fn empty_buffers_of_the_usual_size_are_used_again_and_others_are_not_kept() {
        let mut place = BytesMut::with_capacity(1000);
        place.extend_from_slice(&[7; 200]);
        strip(&mut place, 1000);
        assert_eq!((&place[..], spare()), (&[7; 200][..], 0), "bytes stay where they are");
        place.advance(190);
        strip(&mut place, 1000);
        assert_eq!((&place[..], spare()), (&[7; 10][..], 1), "a few do not need so much room");
        assert!(place.capacity() < 100);
        place.advance(10);
        strip(&mut place, 1000);
        assert_eq!(spare(), 1);
        let mut taken = BytesMut::new();
        equip(&mut taken);
        assert!(taken.is_empty() && taken.capacity() >= 1000);
        for bytes in [10, 999, 4001, 1 << 20] {
            strip(&mut BytesMut::with_capacity(bytes), 1000);
            assert_eq!(spare(), 0, "{bytes}");
        }
        for _ in 0..2 * MOST {
            strip(&mut BytesMut::with_capacity(1000), 1000);
        }
        assert_eq!(spare(), MOST);
    }
}
