use proptest::prelude::*;

use super::*;

fn texts(text: &str) -> Vec<&str> {
    tokens(text.as_bytes()).unwrap().iter().map(|token| std::str::from_utf8(token.text).unwrap()).collect()
}

fn kinds(text: &str) -> Vec<Kind> {
    tokens(text.as_bytes()).unwrap().iter().map(|token| token.kind).collect()
}

#[test]
fn words_and_quoted_names() {
    assert_eq!(texts("SELECT a$1, _b, \"x\"\"y\".é"), ["SELECT", "a$1", ",", "_b", ",", "\"x\"\"y\"", ".", "é"]);
    assert_eq!(
        kinds("u&\"x\" U&'x' u & x"),
        [Kind::UnicodeQuoted, Kind::UnicodeString, Kind::Word, Kind::Operator, Kind::Word]
    );
}

#[test]
fn strings_of_every_kind() {
    use Kind::*;
    assert_eq!(
        kinds(r"'a''b' E'a\'b' b'01' X'1F' n'x' $$a'b$$ $t$ $$ $t$"),
        [String, EscapeString, BitString, HexString, NationalString, DollarString, DollarString]
    );
    assert_eq!(texts(r"'a\' 'b'"), [r"'a\'", "'b'"]);
    assert_eq!(texts(r"e'\\' x"), [r"e'\\'", "x"]);
    assert_eq!(texts("$a$x$$a$ y"), ["$a$x$$a$", "y"]);
    assert_eq!(texts("a$$b"), ["a$$b"]);
}

#[test]
fn strings_continue_only_over_a_new_line() {
    assert_eq!(texts("'a'\n'b'").len(), 1);
    assert_eq!(texts("'a' -- c\n \t'b'\r\n'c'").len(), 1);
    assert_eq!(texts("'a'\n -- c\n'b'").len(), 1);
    assert_eq!(texts("'a' 'b'").len(), 2);
    assert_eq!(texts("'a' /* \n */ 'b'").len(), 2);
    assert_eq!(texts("'a'\nE'b'").len(), 2);
    assert_eq!(texts("$$a$$\n'b'").len(), 2);
    assert_eq!(texts("\"a\"\n\"b\"").len(), 2);
    assert_eq!(texts("E'a'\n'\\'b' c"), ["E'a'\n'\\'b'", "c"]);
    let token = tokens(b"E'a' -- 'x'\n'b\\''\n'c'").unwrap()[0];
    assert_eq!(token.pieces().collect::<Vec<_>>(), [&b"E'a'"[..], b"'b\\''", b"'c'"]);
}

#[test]
fn numbers() {
    use Kind::*;
    assert_eq!(
        kinds("1 1_000 0x1F 0o17 0b01 1. .5 1.5 1e10 1.e-5 .5E+3"),
        [Integer, Integer, Integer, Integer, Integer, Decimal, Decimal, Decimal, Exponent, Exponent, Exponent]
    );
    assert_eq!(texts("1..2"), ["1", "..", "2"]);
    assert_eq!(texts("1.5.5"), ["1.5", ".5"]);
    assert_eq!(texts("$1+$23"), ["$1", "+", "$23"]);
    for junk in ["1a", "1e", "1e+", "0x", "0xg", "1_", "1__0", "1.5x", "$1a", "1.a", "0b2"] {
        assert!(tokens(junk.as_bytes()).is_err(), "{junk}");
    }
}

#[test]
fn operators_end_where_postgres_ends_them() {
    assert_eq!(texts("a<=-1"), ["a", "<=", "-", "1"]);
    assert_eq!(texts("a*-1"), ["a", "*", "-", "1"]);
    assert_eq!(texts("a@-1"), ["a", "@-", "1"]);
    assert_eq!(texts("a->>'x'"), ["a", "->>", "'x'"]);
    assert_eq!(texts("a+--c\n1"), ["a", "+", "1"]);
    assert_eq!(texts("a*/*c*/1"), ["a", "*", "1"]);
    assert_eq!(texts("a +-+ 1"), ["a", "+", "-", "+", "1"]);
    assert_eq!(
        texts("a=>1,b:=2,c::d,e!=f<>g"),
        ["a", "=>", "1", ",", "b", ":=", "2", ",", "c", "::", "d", ",", "e", "!=", "f", "<>", "g"]
    );
    assert_eq!(kinds("=>-")[0], Kind::Punctuation);
    assert_eq!(texts("x[1:2]"), ["x", "[", "1", ":", "2", "]"]);
}

#[test]
fn comments_nest_and_line_comments_end_at_either_line_end() {
    assert_eq!(texts("/* a /* b */ c */ x -- y\rz"), ["x", "z"]);
    assert_eq!(texts("/**/x/***/y"), ["x", "y"]);
    assert_eq!(texts("-- only"), Vec::<&str>::new());
}

#[test]
fn what_postgres_refuses_is_an_error() {
    for text in [
        "'a", "\"a", "/* a", "/* /* */", "$$a", "$a$ $b$", "E'\\'", "\"\"", "$a", "\\", "{", "a\x0bb", "a\0", "U&'x",
        "'a'\n'b",
    ] {
        assert!(tokens(text.as_bytes()).is_err(), "{text:?}");
    }
}

/// Fragments that make lexers stumble when they meet.
pub(crate) fn sqlish() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        prop::sample::select(vec![
            "'", "''", "\"", "$", "$$", "$a$", "$1", "E'", "e'\\", "U&'", "u&\"", "N'", "x'", "B'", "\\", "--", "/*",
            "*/", "\n", "\r", " ", "\t", "+", "-", "*", "<", "=", "=>", ":", "::", ":=", ".", "..", "1", "0x", "1_0",
            "e5", ".5", "(", ")", "[", "]", ",", ";", "SELECT", "a", "B", "é", "now", "@", "!", "?",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..3),
    ];
    prop::collection::vec(fragment, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn tokens_and_gaps_are_the_text(text in sqlish()) {
        let mut at = 0;
        for token in Lexer::new(&text) {
            let Ok(token) = token else { break };
            prop_assert!(token.start >= at && !token.text.is_empty());
            prop_assert_eq!(skip_gap(&text, at).unwrap(), token.start);
            prop_assert_eq!(token.text, &text[token.start..token.end()]);
            let pieces: usize = token.pieces().map(<[u8]>::len).sum();
            prop_assert!(pieces <= token.text.len() && pieces > 0);
            at = token.end();
        }
        if tokens(&text).is_ok() {
            prop_assert_eq!(skip_gap(&text, at).unwrap(), text.len());
        }
    }

    #[test]
    fn a_token_alone_is_the_same_token(text in sqlish()) {
        for token in Lexer::new(&text).map_while(Result::ok) {
            let again = tokens(token.text);
            prop_assert!(matches!(again.as_deref(), Ok([one]) if one.kind == token.kind && one.text == token.text));
        }
    }
}
