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
    text.split(|byte| !byte.is_ascii_alphabetic()).any(|run| WORDS.iter().any(|word| run.eq_ignore_ascii_case(word)))
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
        for text in ["", "snow", "know-how", "nowhere", "2020-01-01", "to day", "todaytomorrow"] {
            assert!(!contains_special_time_word(text.as_bytes()), "{text}");
        }
    }
}
