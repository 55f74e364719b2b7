//! A client of the WebSocket endpoint.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::handshake::decoded;
use super::messages::{ClientMessage, Column, ServerMessage};

/// The longest batch: one row may be 64 MiB, which JSON makes longer.
const MAX_MESSAGE: usize = 512 * 1024 * 1024;

/// Why a stream, or the connection, is of no use.
#[derive(Debug, Error)]
pub enum StreamingError {
    #[error("the address is not of the form ws://user:password@host:port/stream?database=name: {0}")]
    Address(String),
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The proxy's HTTP status and what it says.
    #[error("the proxy refuses the connection ({status}): {text}")]
    Refused { status: u16, text: String },
    #[error("the connection failed: {0}")]
    Socket(Box<SocketError>),
    #[error("the proxy has closed the connection: {0}")]
    Closed(String),
    #[error("the proxy has sent what is not understood: {0}")]
    Message(#[from] serde_json::Error),
    /// The stream has failed; the connection can be used for the next.
    #[error("{error} (SQLSTATE {sqlstate})")]
    Query { error: String, sqlstate: String },
    #[error("no stream has been started")]
    NoStream,
    #[error("the last stream has not ended yet; stop it first")]
    Busy,
}

impl From<SocketError> for StreamingError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Http(response) => {
                let text = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                Self::Refused { status: response.status().as_u16(), text: text.trim().to_owned() }
            }
            error => Self::Socket(Box::new(error)),
        }
    }
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A WebSocket to the proxy, with one stream at a time.
///
/// ```no_run
/// # async fn example() -> Result<(), heliosproxy::stream::StreamingError> {
/// use heliosproxy::stream::StreamingQueryClient;
///
/// let mut client = StreamingQueryClient::connect("ws://alice:secret@127.0.0.1:6434/stream?database=app").await?;
/// client.start_stream("SELECT id, total FROM orders WHERE customer = $1", &[42.into()]).await?;
/// while let Some(rows) = client.next_batch().await? {
///     for row in rows {
///         println!("{} {}", row[0], row[1]);
///     }
/// }
/// println!("{:?} rows", client.get_total_rows());
/// # Ok(())
/// # }
/// ```
pub struct StreamingQueryClient {
    socket: WebSocketStream<Box<dyn Transport>>,
    /// Streams that were started.
    count: u64,
    stream: Option<Current>,
    early: VecDeque<Vec<Vec<Value>>>,
}

/// The stream that was started last.
struct Current {
    query_id: String,
    columns: Vec<Column>,
    /// What the planner expects, then what it was.
    total_rows: Option<u64>,
    ended: bool,
}

impl StreamingQueryClient {
    /// Connects to `ws://user:password@host:port/stream?database=name`, or `wss://` for TLS with the system's trusted
    /// authorities. What is special in names and passwords is written as in any address, `%40` for `@`.
    pub async fn connect(address: &str) -> Result<Self, StreamingError> {
        let uri: Uri = address.parse().map_err(|error| StreamingError::Address(format!("{error}")))?;
        let user = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')).map(|(user, _)| user);
        let authorization = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            format!("Basic {}", STANDARD.encode(format!("{}:{}", decoded(name), decoded(password))))
        });
        Self::open(&uri, authorization).await
    }

    /// The same with a bearer token.
    pub async fn connect_with_token(address: &str, token: &str) -> Result<Self, StreamingError> {
        let uri: Uri = address.parse().map_err(|error| StreamingError::Address(format!("{error}")))?;
        Self::open(&uri, Some(format!("Bearer {token}"))).await
    }

    async fn open(uri: &Uri, authorization: Option<String>) -> Result<Self, StreamingError> {
        let wrong = |what: &str| StreamingError::Address(what.to_owned());
        let host = uri.host().ok_or_else(|| wrong("no host"))?;
        let (tls, default_port) = match uri.scheme_str() {
            Some("ws") => (false, 80),
            Some("wss") => (true, 443),
            _ => return Err(wrong("it begins with neither ws:// nor wss://")),
        };
        let mut request: Request<()> = uri.into_client_request()?;
        if let Some(authorization) = authorization {
            let mut value = HeaderValue::from_str(&authorization).map_err(|_| wrong("the password cannot be sent"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((host, uri.port_u16().unwrap_or(default_port))).await?;
        tcp.set_nodelay(true)?;
        let transport: Box<dyn Transport> = match tls {
            true => {
                let name =
                    ServerName::try_from(host.to_owned()).map_err(|_| wrong("no certificate can be for this host"))?;
                Box::new(TlsConnector::from(trusting_system()?).connect(name, tcp).await?)
            }
            false => Box::new(tcp),
        };
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let (socket, _) = client_async_with_config(request, transport, Some(config)).await?;
        Ok(Self { socket, count: 0, stream: None, early: VecDeque::new() })
    }

    /// Starts a stream, and waits until the proxy says what its columns are.
    pub async fn start_stream(&mut self, sql: &str, params: &[Value]) -> Result<&[Column], StreamingError> {
        if self.stream.as_ref().is_some_and(|stream| !stream.ended) {
            return Err(StreamingError::Busy);
        }
        self.count += 1;
        let query_id = self.count.to_string();
        let start =
            ClientMessage::StartStream { query_id: query_id.clone(), sql: sql.to_owned(), params: params.to_vec() };
        self.early.clear();
        self.stream = Some(Current { query_id, columns: Vec::new(), total_rows: None, ended: false });
        self.send(&start).await?;
        while !self.hear().await? {}
        Ok(self.columns())
    }

    /// The next rows; `None` if there are no more.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<Vec<Value>>>, StreamingError> {
        loop {
            match (&self.stream, self.early.pop_front()) {
                (_, Some(rows)) => return Ok(Some(rows)),
                (None, None) => return Err(StreamingError::NoStream),
                (Some(stream), None) if stream.ended => return Ok(None),
                (Some(_), None) => {}
            }
            self.hear().await?;
        }
    }

    /// The columns of the stream that was started last.
    pub fn columns(&self) -> &[Column] {
        self.stream.as_ref().map_or(&[], |stream| &stream.columns)
    }

    /// Its rows: as many as the planner expects, if it was asked, until the stream is complete, and then as many as there were.
    pub fn get_total_rows(&self) -> Option<u64> {
        self.stream.as_ref()?.total_rows
    }

    /// Stops the stream; what is still under way is thrown away. Returns when nothing of it runs any more.
    pub async fn stop(&mut self) -> Result<(), StreamingError> {
        let Some(stream) = self.stream.as_ref().filter(|stream| !stream.ended) else { return Ok(()) };
        let stop = ClientMessage::StopStream { query_id: stream.query_id.clone() };
        self.send(&stop).await?;
        while self.stream.as_ref().is_some_and(|stream| !stream.ended) {
            match self.hear().await {
                Ok(_) => self.early.clear(),
                // That it was stopped, or failed just before: either way it has ended.
                Err(StreamingError::Query { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes leave.
    pub async fn close(mut self) -> Result<(), StreamingError> {
        Ok(self.socket.close(None).await?)
    }

    async fn send(&mut self, message: &ClientMessage) -> Result<(), StreamingError> {
        Ok(self.socket.send(Message::text(serde_json::to_string(message)?)).await?)
    }

    /// Deals with the next message. True once the present stream has begun.
    async fn hear(&mut self) -> Result<bool, StreamingError> {
        let text = loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => break text,
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.map_or_else(String::new, |frame| frame.reason.to_string());
                    return Err(StreamingError::Closed(reason));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(StreamingError::Closed("without a word".into())),
            }
        };
        let message: ServerMessage = serde_json::from_str(&text)?;
        let Some(stream) = &mut self.stream else { return Ok(false) };
        match message {
            ServerMessage::StreamStarted { query_id, total_rows_estimate, columns } if query_id == stream.query_id => {
                (stream.total_rows, stream.columns) = (total_rows_estimate, columns);
                Ok(true)
            }
            ServerMessage::DataBatch { query_id, rows, .. } if query_id == stream.query_id => {
                // The last one may hold none.
                if !rows.is_empty() {
                    self.early.push_back(rows);
                }
                Ok(false)
            }
            ServerMessage::StreamCompleted { query_id, total_rows } if query_id == stream.query_id => {
                (stream.total_rows, stream.ended) = (Some(total_rows), true);
                Ok(false)
            }
            ServerMessage::StreamError { query_id, error, sqlstate } if query_id == stream.query_id => {
                stream.ended = true;
                Err(StreamingError::Query { error, sqlstate })
            }
            _ => Ok(false),
        }
    }
}

fn trusting_system() -> Result<Arc<ClientConfig>, StreamingError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
