//! The elements of an array parameter in canonical form.

use super::value::{Canonical, ValueKind};

/// Elements at most; a longer array pins nothing.
const LONGEST: usize = 256;

/// Array types by the types of their elements (src/include/catalog/pg_type.dat, typarray).
const ARRAYS: [(u32, u32); 8] =
    [(1000, 16), (1016, 20), (1005, 21), (1007, 23), (1009, 25), (1015, 1043), (1182, 1082), (2951, 2950)];

/// The elements that are not NULL, which nothing equals. `None` if one has no form or the array is not understood.
pub fn elements(kind: ValueKind, array_oid: u32, binary: bool, value: &[u8]) -> Option<Vec<Canonical>> {
    let (_, element) = ARRAYS.into_iter().find(|(array, _)| *array == array_oid)?;
    if !kind.takes(element) {
        return None;
    }
    if binary { from_binary(kind, element, value) } else { from_text(kind, value) }
}

/// Dimensions, a flag for NULLs, the element type, then length and lower bound of each dimension, then the elements
/// (`array_recv`, src/backend/utils/adt/arrayfuncs.c).
fn from_binary(kind: ValueKind, element: u32, value: &[u8]) -> Option<Vec<Canonical>> {
    let mut rest = value;
    let dimensions = word(&mut rest)?;
    let _flags = word(&mut rest)?;
    if word(&mut rest)? as u32 != element {
        return None;
    }
    let count = match dimensions {
        0 => 0,
        1 => {
            let count = usize::try_from(word(&mut rest)?).ok()?;
            let _lower = word(&mut rest)?;
            count
        }
        _ => return None,
    };
    if count > LONGEST {
        return None;
    }
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        let length = word(&mut rest)?;
        if length == -1 {
            continue;
        }
        let (bytes, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        elements.push(kind.from_binary(element, bytes)?);
        rest = after;
    }
    rest.is_empty().then_some(elements)
}

/// `{1,2,3}` without quotes, blanks and dimensions: integers and UUIDs only, whose text never needs them.
fn from_text(kind: ValueKind, value: &[u8]) -> Option<Vec<Canonical>> {
    if !matches!(kind, ValueKind::Integer | ValueKind::Uuid) {
        return None;
    }
    let inside = value.strip_prefix(b"{")?.strip_suffix(b"}")?;
    if inside.is_empty() {
        return Some(Vec::new());
    }
    let elements: Vec<Canonical> =
        inside.split(|byte| *byte == b',').map(|element| kind.from_text(element)).collect::<Option<_>>()?;
    (elements.len() <= LONGEST).then_some(elements)
}

fn word(rest: &mut &[u8]) -> Option<i32> {
    let (first, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(i32::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(value: i64) -> Canonical {
        value.to_be_bytes().to_vec()
    }

    fn array(words: &[i32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn elements_are_found_in_both_formats() {
        let binary = array(&[1, 1, 23, 3, 1, 4, 7, -1, 4, 9]);
        assert_eq!(elements(ValueKind::Integer, 1007, true, &binary), Some(vec![int(7), int(9)]));
        assert_eq!(elements(ValueKind::Integer, 1016, false, b"{7,-9}"), Some(vec![int(7), int(-9)]));
        assert_eq!(elements(ValueKind::Integer, 1007, true, &array(&[0, 0, 23])), Some(vec![]));
        assert_eq!(elements(ValueKind::Integer, 1007, false, b"{}"), Some(vec![]));
    }

    #[test]
    fn what_is_not_understood_pins_nothing() {
        for (type_oid, words) in [
            (1007, &[2, 0, 23, 1, 1, 1, 1, 4, 7][..]),
            (1007, &[1, 0, 20, 1, 1, 4, 7]),
            (1007, &[1, 0, 23, 2, 1, 4, 7]),
            (1007, &[1, 0, 23, 1, 1, 4, 7, 0]),
            (1007, &[1, 0, 23, 100_000, 1]),
            (1007, &[1, 0, 23, -1, 1]),
            (1231, &[1, 0, 1700, 1, 1, 4, 7]),
        ] {
            assert_eq!(elements(ValueKind::Integer, type_oid, true, &array(words)), None, "{words:?}");
        }
        for text in ["{1,NULL}", "{ 1}", "{{1}}", "[0:0]={1}", "1", "{1,}", "{\"1\"}"] {
            assert_eq!(elements(ValueKind::Integer, 1007, false, text.as_bytes()), None, "{text}");
        }
        assert_eq!(elements(ValueKind::Text { longest: None }, 1009, false, b"{a}"), None);
    }
}
