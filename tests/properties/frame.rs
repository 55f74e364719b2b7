//! The header of a frame depends on its five bytes only, and is never wrong about where the next one begins.

use heliosproxy::wire::frame::{FrameError, HEADER_BYTES, MAX_LENGTH, peek};

/// Cut into frames a byte at a time or all at once, a stream has the same ones.
pub fn arrive_in_any_pieces(bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        let header = peek(rest);
        for end in 0..rest.len().min(HEADER_BYTES) {
            assert_eq!(peek(&rest[..end]), Ok(None), "decided before the header is there");
        }
        let (Some(header_bytes), true) = (rest.get(..HEADER_BYTES), header != Ok(None)) else {
            assert!(rest.len() < HEADER_BYTES && header == Ok(None));
            return;
        };
        assert_eq!(peek(header_bytes), header, "decided by more than the header");
        let length = u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]);
        match header {
            Ok(Some(header)) => {
                assert_eq!((header.tag, header.total), (rest[0], length as usize + 1));
                assert!(header.total >= HEADER_BYTES && length <= MAX_LENGTH);
                let Some(after) = rest.get(header.total..) else { return };
                rest = after;
            }
            Err(error) => {
                assert_eq!(error, FrameError::Length { tag: rest[0], length });
                assert!(!(4..=MAX_LENGTH).contains(&length));
                return;
            }
            Ok(None) => return,
        }
    }
}
