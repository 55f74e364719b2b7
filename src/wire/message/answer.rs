//! Backend messages that the proxy itself says in answer to a query, appended to a buffer.
//!
//! What is encoded here is the proxy's own: texts are cut at a NUL, where they would end anyway, and a row is far below the
//! longest message.

use bytes::{BufMut, BytesMut};

use crate::wire::frame::backend;

/// One column of a RowDescription that belongs to no table.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    pub name: &'a str,
    pub type_oid: u32,
    /// Bytes of a value, -1 if they vary.
    pub size: i16,
    /// 0 text, 1 binary.
    pub format: i16,
}

pub fn row_description<'a>(out: &mut BytesMut, fields: impl ExactSizeIterator<Item = Field<'a>>) {
    frame(out, backend::ROW_DESCRIPTION, |out| {
        out.put_u16(fields.len() as u16);
        for field in fields {
            put_text(out, field.name);
            out.put_u32(0);
            out.put_u16(0);
            out.put_u32(field.type_oid);
            out.put_i16(field.size);
            out.put_i32(-1);
            out.put_i16(field.format);
        }
    });
}

/// `put` appends a value, or returns false for NULL.
pub fn data_row<T>(
    out: &mut BytesMut,
    values: impl ExactSizeIterator<Item = T>,
    mut put: impl FnMut(T, &mut BytesMut) -> bool,
) {
    frame(out, backend::DATA_ROW, |out| {
        out.put_u16(values.len() as u16);
        for value in values {
            let start = out.len();
            out.put_i32(-1);
            if put(value, out) {
                let length = (out.len() - start - 4) as i32;
                out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
    });
}

pub fn command_complete(out: &mut BytesMut, tag: &str) {
    frame(out, backend::COMMAND_COMPLETE, |out| put_text(out, tag));
}

/// The types of a statement's parameters.
pub fn parameter_description(out: &mut BytesMut, types: &[u32]) {
    frame(out, backend::PARAMETER_DESCRIPTION, |out| {
        out.put_u16(types.len() as u16);
        types.iter().for_each(|oid| out.put_u32(*oid));
    });
}

/// A message that is only its type: ParseComplete, NoData and the like.
pub fn bare(out: &mut BytesMut, tag: u8) {
    frame(out, tag, |_| {});
}

fn frame(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let start = out.len();
    out.put_u32(0);
    body(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_slice(text.split('\0').next().unwrap_or_default().as_bytes());
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::backend;

    #[test]
    fn what_is_encoded_is_decoded_to_the_same() {
        let mut out = BytesMut::new();
        let field = |name| Field { name, type_oid: 20, size: 8, format: 0 };
        row_description(&mut out, ["a", "b"].into_iter().map(field));
        assert_eq!(backend::row_description(&out[5..]).unwrap().len(), 2);
        out.clear();
        let put = |value: Option<&str>, out: &mut BytesMut| value.map(|text| out.put_slice(text.as_bytes())).is_some();
        data_row(&mut out, [Some("x"), None, Some("")].into_iter(), put);
        assert_eq!(backend::data_row(&out[5..]), Ok(vec![Some(&b"x"[..]), None, Some(&b""[..])]));
        out.clear();
        command_complete(&mut out, "SHOW");
        assert_eq!(backend::command_tag(&out[5..]), Ok(&b"SHOW"[..]));
        out.clear();
        parameter_description(&mut out, &[23]);
        assert_eq!(backend::parameter_types(&out[5..]).map(Iterator::collect::<Vec<_>>), Ok(vec![23]));
        out.clear();
        bare(&mut out, b'1');
        assert_eq!(&out[..], b"1\0\0\0\x04");
    }
}
