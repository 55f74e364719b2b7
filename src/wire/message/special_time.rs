//! The words that PostgreSQL's date/time input replaces by the current time.

const WORDS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

/// Whether the bytes hold one of the words in any case, with no ASCII letter next to it (`snow` is no such word,
/// `today10:00` is one, as in PostgreSQL's parser).
///
/// Array and row input drop backslashes and double quotes before the element is read, so the words are also looked for
/// with those left out.
pub fn contains_special_time_word(text: &[u8]) -> bool {
    if has_word(text) {
        return true;
    }
    let is_dropped = |byte: &u8| matches!(byte, b'\\' | b'"');
    text.iter().any(is_dropped) && has_word(&text.iter().copied().filter(|byte| !is_dropped(byte)).collect::<Vec<_>>())
}

fn has_word(text: &[u8]) -> bool {
    let is_word = |run: &[u8]| WORDS.iter().any(|word| run.eq_ignore_ascii_case(word));
    let mut start = 0_usize;
    text.split(|byte| !byte.is_ascii_alphabetic()).any(|run| {
        // In binary format an element stands behind its length, whose last bytes may look like letters. Text has no NUL.
        let behind_length = text[start.saturating_sub(3)..start].contains(&0);
        start += run.len() + 1;
        is_word(run) || (behind_length && (1..=3).any(|length| run.get(length..).is_some_and(is_word)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_whatever_surrounds_them() {
        for text in
            ["now", " NOW ", "today10:00", "10:00today", "[today,tomorrow]", "{\"Yesterday\"}", r"{n\ow}", r#"(n"o"w)"#]
        {
            assert!(contains_special_time_word(text.as_bytes()), "{text}");
        }
        let element = [b"\0\0\0anow", &[b' '; 94][..]].concat();
        assert!(contains_special_time_word(&element) && contains_special_time_word(b"\0Aaatoday"));
        for text in ["", "snow", "know-how", "nowhere", "2020-01-01", "to day", "todaytomorrow"] {
            assert!(!contains_special_time_word(text.as_bytes()), "{text}");
        }
    }
}
