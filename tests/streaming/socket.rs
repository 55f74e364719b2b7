//! A proxy with a WebSocket endpoint, and a bare client for it.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::{Options, Stage, port, within};

pub struct StreamStage {
    pub stage: Stage,
    pub port: u16,
}

impl StreamStage {
    pub async fn new(setup: &str) -> Self {
        Self::with(Options::default(), setup).await
    }

    pub async fn with(options: Options, setup: &str) -> Self {
        let port = port::free();
        let stage = Stage::setup_with(options.key("stream.listen", format!("127.0.0.1:{port}")), setup).await;
        Self { stage, port }
    }

    /// Where the superuser streams from the stage's database.
    pub fn address(&self) -> String {
        format!(
            "ws://postgres@127.0.0.1:{}/stream?database={}&application_name=streams",
            self.port, self.stage.database
        )
    }

    /// A request for it without any authorization.
    pub fn request(&self, headers: &[(&str, &str)]) -> Request<()> {
        let address =
            format!("ws://127.0.0.1:{}/stream?database={}&application_name=streams", self.port, self.stage.database);
        let mut request = address.into_client_request().unwrap();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    pub async fn socket(&self) -> Socket {
        // "postgres:"
        self.open(&[("Authorization", "Basic cG9zdGdyZXM6")]).await.unwrap()
    }

    pub async fn open(&self, headers: &[(&str, &str)]) -> Result<Socket, Error> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (socket, _) = client_async(self.request(headers), tcp).await?;
        Ok(Socket(socket))
    }

    /// The status with which the proxy refuses, and what it says.
    pub async fn refusal(&self, headers: &[(&str, &str)]) -> (u16, String) {
        match self.open(headers).await {
            Err(Error::Http(response)) => {
                let text = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned();
                (response.status().as_u16(), text)
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("let in: {headers:?}"),
        }
    }

    /// Waits until no backend of the stage's streams does anything.
    pub async fn until_idle(&self) {
        let busy = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'streams' \
            AND datname = current_database() AND state <> 'idle'";
        self.stage.direct().await.until("the streams' backends are idle", busy).await;
    }
}

pub struct Socket(pub WebSocketStream<TcpStream>);

impl Socket {
    pub async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    pub async fn start(&mut self, query_id: &str, sql: &str, params: &[Value]) {
        self.say(json!({"type": "StartStream", "query_id": query_id, "sql": sql, "params": params})).await;
    }

    pub async fn stop(&mut self, query_id: &str) {
        self.say(json!({"type": "StopStream", "query_id": query_id})).await;
    }

    /// The next message that is no heartbeat; `Null` when the proxy has closed the socket, with its code.
    pub async fn hear(&mut self) -> Value {
        loop {
            match within("a message", self.0.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["type"] != "Heartbeat" {
                        return message;
                    }
                }
                Some(Ok(Message::Close(frame))) => return json!({"close": frame.map(|frame| u16::from(frame.code))}),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Value::Null,
            }
        }
    }

    /// The next one of this type.
    pub async fn hear_type(&mut self, wanted: &str) -> Value {
        let message = self.hear().await;
        assert_eq!(message["type"], wanted, "{message}");
        message
    }

    /// Runs a statement to its end: what began it, all rows, what ended it.
    pub async fn run(&mut self, sql: &str, params: &[Value]) -> Run {
        self.start("q", sql, params).await;
        let mut run = Run::default();
        loop {
            let mut message = self.hear().await;
            match message["type"].as_str() {
                Some("StreamStarted") => run.started = message,
                Some("DataBatch") => {
                    let Value::Array(rows) = message["rows"].take() else { panic!("{message}") };
                    run.batches.push((rows.len(), message["is_final"] == true));
                    assert_eq!(message["batch_number"], run.batches.len());
                    run.rows.extend(rows);
                }
                _ => {
                    run.end = message;
                    return run;
                }
            }
        }
    }
}

#[derive(Default, Debug)]
pub struct Run {
    pub started: Value,
    pub rows: Vec<Value>,
    /// How many rows each had, and whether it said that it was the last.
    pub batches: Vec<(usize, bool)>,
    pub end: Value,
}

impl Run {
    pub fn sqlstate(&self) -> &str {
        self.end["sqlstate"].as_str().unwrap_or_default()
    }
}
