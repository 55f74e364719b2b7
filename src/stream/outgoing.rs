//! What is on its way to a client.

use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::json::{self, put_string};
use super::messages::ServerMessage;
use super::types::ValueType;

/// A batch with so many bytes is sent whatever its rows.
const LONG_BATCH: usize = 1024 * 1024;

/// A message for the socket, and what is given back when it has been written.
pub struct Outgoing {
    pub message: Message,
    _rows: Option<OwnedSemaphorePermit>,
}

impl Outgoing {
    pub fn message(message: &ServerMessage) -> Self {
        // Strings, numbers and lists of these have a form in JSON; an empty message would be one that no client understands.
        let text = serde_json::to_string(message).unwrap_or_default();
        Self { message: Message::text(text), _rows: None }
    }

    pub fn batch(text: String, rows: Option<OwnedSemaphorePermit>) -> Self {
        Self { message: Message::Text(Utf8Bytes::from(text)), _rows: rows }
    }

    pub fn close(frame: CloseFrame) -> Self {
        Self { message: Message::Close(Some(frame)), _rows: None }
    }
}

/// The rows of one batch, as the JSON text of a [`ServerMessage::DataBatch`] that is not closed yet.
pub struct Batch {
    /// Up to the first row.
    head: String,
    text: String,
    rows: usize,
    number: u64,
    begun: Option<Instant>,
}

impl Batch {
    pub fn new(query_id: &str) -> Self {
        let mut head = String::from(r#"{"type":"DataBatch","query_id":"#);
        put_string(&mut head, query_id);
        head.push_str(r#","rows":["#);
        Self { text: head.clone(), head, rows: 0, number: 0, begun: None }
    }

    /// Appends a row: values as PostgreSQL writes them as text, of these types.
    pub fn push(&mut self, types: &[ValueType], values: &[Option<&[u8]>]) {
        self.begun.get_or_insert_with(Instant::now);
        self.text.push_str(if self.rows == 0 { "[" } else { ",[" });
        let unknown = ValueType::unknown();
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            json::put(&mut self.text, types.get(index).unwrap_or(&unknown), *value);
        }
        self.text.push(']');
        self.rows += 1;
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn is_long(&self) -> bool {
        self.text.len() >= LONG_BATCH
    }

    /// When its first row came.
    pub fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// The message, and room for the next batch.
    pub fn finish(&mut self, is_final: bool) -> String {
        self.number += 1;
        self.text.push_str(&format!(r#"],"batch_number":{},"is_final":{is_final}}}"#, self.number));
        // The next one is about as long.
        let mut next = String::with_capacity(if is_final { 0 } else { self.text.len() });
        next.push_str(&self.head);
        (self.rows, self.begun) = (0, None);
        std::mem::replace(&mut self.text, next)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_batch_is_the_message_that_clients_read() {
        let mut batch = Batch::new("a \"b\"");
        let types = [ValueType::built_in(23).unwrap()];
        batch.push(&types, &[Some(b"1"), None]);
        batch.push(&types, &[Some(b"2"), Some(b"x")]);
        assert_eq!(batch.rows(), 2);
        let first: ServerMessage = serde_json::from_str(&batch.finish(false)).unwrap();
        let rows = vec![vec![json!(1), json!(null)], vec![json!(2), json!("x")]];
        let query_id = String::from("a \"b\"");
        let wanted = ServerMessage::DataBatch { query_id: query_id.clone(), rows, batch_number: 1, is_final: false };
        assert_eq!(first, wanted);
        assert!(batch.begun().is_none());
        let last: ServerMessage = serde_json::from_str(&batch.finish(true)).unwrap();
        assert_eq!(last, ServerMessage::DataBatch { query_id, rows: Vec::new(), batch_number: 2, is_final: true });
    }
}
