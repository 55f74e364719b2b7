//! What travels over a WebSocket: JSON objects in text messages, told apart by their `type`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum ClientMessage {
    StartStream {
        /// The client's name for it; no other of its streams has it at the time.
        query_id: String,
        sql: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        params: Vec<Value>,
    },
    StopStream {
        query_id: String,
    },
}

/// What the server sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum ServerMessage {
    StreamStarted {
        query_id: String,
        /// By the planner; `None` if it was not asked.
        total_rows_estimate: Option<u64>,
        columns: Vec<Column>,
    },
    DataBatch {
        query_id: String,
        rows: Vec<Vec<Value>>,
        /// From 1.
        batch_number: u64,
        is_final: bool,
    },
    StreamCompleted {
        query_id: String,
        total_rows: u64,
    },
    StreamError {
        query_id: String,
        error: String,
        sqlstate: String,
    },
    Heartbeat {
        /// Milliseconds since 1970.
        timestamp: u64,
    },
}

/// One column of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// As PostgreSQL calls it in its catalogue: `int4`, `timestamptz`; arrays end with `[]`.
    #[serde(rename = "type")]
    pub type_name: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_told_apart_by_their_type() {
        let start: ClientMessage =
            serde_json::from_value(json!({"type": "StartStream", "query_id": "q", "sql": "SELECT 1"})).unwrap();
        assert_eq!(
            start,
            ClientMessage::StartStream { query_id: "q".into(), sql: "SELECT 1".into(), params: Vec::new() }
        );
        let stop: ClientMessage = serde_json::from_value(json!({"type": "StopStream", "query_id": "q"})).unwrap();
        assert_eq!(stop, ClientMessage::StopStream { query_id: "q".into() });
        assert!(serde_json::from_value::<ClientMessage>(json!({"type": "Else"})).is_err());
        let columns = vec![Column { name: "n".into(), type_name: "int4".into() }];
        let started = ServerMessage::StreamStarted { query_id: "q".into(), total_rows_estimate: None, columns };
        assert_eq!(
            serde_json::to_value(started).unwrap(),
            json!({"type": "StreamStarted", "query_id": "q", "total_rows_estimate": null,
                   "columns": [{"name": "n", "type": "int4"}]})
        );
    }
}
