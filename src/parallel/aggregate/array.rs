//! Arrays as PostgreSQL takes them for binary parameters (`array_recv`, src/backend/utils/adt/arrayfuncs.c).

use bytes::{BufMut, Bytes, BytesMut};

/// One dimension that begins at 1.
#[derive(Debug)]
pub(super) struct Array {
    element_type: u32,
    count: i32,
    has_null: bool,
    elements: BytesMut,
}

/// Dimensions, whether there are NULLs, type, length, lower bound.
const HEADER_BYTES: usize = 20;

impl Array {
    pub fn of(element_type: u32) -> Self {
        let mut elements = BytesMut::new();
        elements.put_bytes(0, HEADER_BYTES);
        Self { element_type, count: 0, has_null: false, elements }
    }

    pub fn push(&mut self, value: Option<&[u8]>) {
        self.count += 1;
        match value {
            None => {
                self.has_null = true;
                self.elements.put_i32(-1);
            }
            Some(value) => {
                // A value is shorter than a message.
                self.elements.put_i32(value.len() as i32);
                self.elements.put_slice(value);
            }
        }
    }

    pub fn finish(mut self) -> Bytes {
        let dimensions = i32::from(self.count > 0);
        let mut header = &mut self.elements[..HEADER_BYTES];
        header.put_i32(dimensions);
        header.put_i32(i32::from(self.has_null));
        header.put_u32(self.element_type);
        header.put_i32(self.count);
        header.put_i32(1);
        if self.count == 0 {
            // An array of nothing has no dimension.
            self.elements.truncate(12);
        }
        self.elements.freeze()
    }
}
