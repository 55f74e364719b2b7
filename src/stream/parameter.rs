//! Parameters: from the client's JSON to the text that PostgreSQL reads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::types::{Kind, ValueType};

/// The text of a value for a parameter of this type; `None` is NULL. `Err` says what is wrong with it.
pub fn text(of: &ValueType, value: &Value) -> Result<Option<String>, String> {
    Ok(match value {
        Value::Null => None,
        Value::Array(elements) if of.is_array || of.kind != Kind::Json => Some(array(of.kind, elements)?),
        value => Some(scalar(of.kind, value)?),
    })
}

fn scalar(kind: Kind, value: &Value) -> Result<String, String> {
    Ok(match value {
        value if kind == Kind::Json => value.to_string(),
        Value::String(text) if kind == Kind::Bytea => {
            let bytes = STANDARD.decode(text).map_err(|error| format!("bytea must be given as base64: {error}"))?;
            bytes.iter().fold(String::from("\\x"), |hex, byte| hex + &format!("{byte:02x}"))
        }
        Value::String(text) => text.clone(),
        value => value.to_string(),
    })
}

fn array(kind: Kind, elements: &[Value]) -> Result<String, String> {
    let texts = elements.iter().map(|element| {
        Ok(match element {
            Value::Null => "NULL".to_owned(),
            Value::Array(elements) if kind != Kind::Json => array(kind, elements)?,
            element => format!("\"{}\"", scalar(kind, element)?.replace('\\', "\\\\").replace('"', "\\\"")),
        })
    });
    Ok(format!("{{{}}}", texts.collect::<Result<Vec<_>, String>>()?.join(",")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn given(oid: u32, value: Value) -> Option<String> {
        text(&ValueType::built_in(oid).unwrap(), &value).unwrap()
    }

    #[test]
    fn values_are_written_as_postgresql_reads_them() {
        assert_eq!(given(23, json!(null)), None);
        assert_eq!(given(23, json!(7)).as_deref(), Some("7"));
        assert_eq!(given(20, json!("9223372036854775807")).as_deref(), Some("9223372036854775807"));
        assert_eq!(given(16, json!(true)).as_deref(), Some("true"));
        assert_eq!(given(25, json!("a\"b")).as_deref(), Some("a\"b"));
        assert_eq!(given(17, json!("AP8Q")).as_deref(), Some("\\x00ff10"));
        assert!(text(&ValueType::built_in(17).unwrap(), &json!("\\x00")).is_err());
    }

    #[test]
    fn json_is_embedded_and_arrays_are_arrays() {
        assert_eq!(given(3802, json!([1, "a"])).as_deref(), Some("[1,\"a\"]"));
        assert_eq!(given(3802, json!("a")).as_deref(), Some("\"a\""));
        assert_eq!(given(1007, json!([1, null, 3])).as_deref(), Some("{\"1\",NULL,\"3\"}"));
        assert_eq!(given(1007, json!([[1], [2]])).as_deref(), Some("{{\"1\"},{\"2\"}}"));
        assert_eq!(given(1009, json!(["a\\\"b", ""])).as_deref(), Some(r#"{"a\\\"b",""}"#));
        assert_eq!(given(3807, json!([{"a": 1}])).as_deref(), Some(r#"{"{\"a\":1}"}"#));
    }
}
