//! From a new connection to a WebSocket: TLS, one HTTP request, and who it is from.
//!
//! **Invariant.** Nobody gets a WebSocket who has not logged in as a client of the proxy, and no page of an origin that is not
//! listed does: a browser sends its user's password along with whatever page asks for it.

use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response, create_response, write_response};
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN, SEC_WEBSOCKET_PROTOCOL, WWW_AUTHENTICATE,
};
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::Streams;
use super::inside::{Account, Failure, Inside};
use super::pulse::{Pulse, Watched};
use super::tokens::TokenOwner;
use crate::wire::stream::{Caller, Stream};
use crate::wire::tls::peer_common_name;

/// Where the WebSocket is.
const PATH: &str = "/stream";
/// The subprotocol.
pub const PROTOCOL: &str = "heliosproxy";
/// In front of an Authorization header, in base64url, that comes as another subprotocol: browsers let pages set no headers.
pub const AUTHORIZATION_PROTOCOL: &str = "authorization.";

/// The longest request.
const MAX_REQUEST: usize = 16 * 1024;
/// The longest message that a client may send.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

pub type Socket = WebSocketStream<Watched<Stream>>;

/// Somebody who is logged in.
pub struct Guest {
    pub socket: Socket,
    pub pulse: Arc<Pulse>,
    pub account: Account,
    /// The session by which he has logged in.
    pub session: Inside,
}

/// Why a request is refused.
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// Of a login.
    fn of(failure: &Failure) -> Self {
        let status = match failure.sqlstate.as_str() {
            // Wrong password, no such user and the like.
            code if code.starts_with("28") => StatusCode::UNAUTHORIZED,
            // No such database, no permission to connect.
            "3D000" | "42501" => StatusCode::FORBIDDEN,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, failure.message.clone())
    }
}

/// Lets somebody in; `None` if he has been told why not. The caller bounds the time.
pub async fn accept(streams: &Arc<Streams>, stream: Stream) -> io::Result<Option<Guest>> {
    // No HTTP request begins like a handshake.
    let stream = match (&streams.tls, stream.begins_with_tls().await?) {
        (Some(tls), true) => tls.accept(stream).await?,
        _ => stream,
    };
    let caller = Caller { address: stream.peer(), tls: stream.is_tls(), common_name: peer_common_name(&stream) };
    let (mut stream, pulse) = Watched::new(stream);
    let mut read = Vec::new();
    let admitted = match read_request(&mut stream, &mut read).await? {
        Ok(request) => admit(streams, &request, caller).await,
        Err(refusal) => Err(refusal),
    };
    match admitted {
        Ok((account, session, response)) => {
            let mut answer = Vec::new();
            write_response(&mut answer, &response).map_err(io::Error::other)?;
            stream.write_all(&answer).await?;
            stream.flush().await?;
            let config =
                WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
            let socket = WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await;
            Ok(Some(Guest { socket, pulse, account, session }))
        }
        Err(refusal) => {
            let answer = refused(&refusal)?;
            stream.write_all(&answer).await?;
            stream.shutdown().await?;
            Ok(None)
        }
    }
}

/// Reads a request; what comes behind it stays in `read`.
async fn read_request(stream: &mut Watched<Stream>, read: &mut Vec<u8>) -> io::Result<Result<Request, Refusal>> {
    loop {
        if stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match Request::try_parse(read) {
            Ok(Some((length, request))) => {
                read.drain(..length);
                return Ok(Ok(request));
            }
            Ok(None) if read.len() < MAX_REQUEST => {}
            Ok(None) => {
                return Ok(Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too long")));
            }
            Err(error) => return Ok(Err(Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))),
        }
    }
}

/// Whether a request is for a WebSocket, from where it may come, and by somebody who can log in.
async fn admit(
    streams: &Arc<Streams>,
    request: &Request,
    caller: Caller,
) -> Result<(Account, Inside, Response), Refusal> {
    if request.uri().path() != PATH {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing here but {PATH}")));
    }
    let mut response = create_response(request)
        .map_err(|error| Refusal::new(StatusCode::UPGRADE_REQUIRED, format!("this is for WebSockets: {error}")))?;
    check_origin(request, &streams.shared.config.load().stream.allowed_origins)?;
    let offered = protocols(request);
    if offered.contains(&PROTOCOL) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    let who = authorization(request, &offered).and_then(|text| owner(streams, &text));
    let TokenOwner { user, password } = who.ok_or_else(|| {
        Refusal::new(StatusCode::UNAUTHORIZED, "who are you? Basic or Bearer authorization is needed")
    })?;
    let query = |name| parameter(request.uri().query().unwrap_or_default(), name);
    let database = query("database").unwrap_or_else(|| user.clone());
    let application_name = query("application_name").unwrap_or_default();
    let account = Account { user, password, database, application_name, caller: Arc::new(caller) };
    let session = Inside::login(streams, &account).await.map_err(|failure| Refusal::of(&failure))?;
    Ok((account, session, response))
}

/// A browser says which page asks. Programs say nothing, and need no page to trick them.
fn check_origin(request: &Request, allowed: &[String]) -> Result<(), Refusal> {
    let Some(origin) = request.headers().get(ORIGIN) else { return Ok(()) };
    let is_allowed = |allowed: &String| allowed == "*" || origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes());
    if allowed.iter().any(is_allowed) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "pages of this origin may not connect: stream.allowed_origins lists who may",
    ))
}

fn protocols(request: &Request) -> Vec<&str> {
    let headers = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    headers.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim).collect()
}

/// The Authorization header, or the subprotocol that stands for it.
fn authorization(request: &Request, protocols: &[&str]) -> Option<String> {
    if let Some(header) = request.headers().get(AUTHORIZATION) {
        return header.to_str().ok().map(str::to_owned);
    }
    let encoded = protocols.iter().find_map(|protocol| protocol.strip_prefix(AUTHORIZATION_PROTOCOL))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// Who it is, or says to be.
fn owner(streams: &Streams, authorization: &str) -> Option<TokenOwner> {
    let (scheme, credentials) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return streams.tokens.owner(credentials.trim());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(TokenOwner { user: user.to_owned(), password: password.to_owned() })
}

/// A parameter of a query string.
fn parameter(query: &str, name: &str) -> Option<String> {
    let pair = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    pair.map(|(_, value)| decoded(value))
}

/// With `%xx` and `+` as what they stand for.
pub fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let hex = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        let (byte, used) = match (first, escaped) {
            (_, Some(byte)) => (byte, 3),
            (b'+', None) => (b' ', 1),
            (byte, None) => (byte, 1),
        };
        bytes.push(byte);
        rest = &rest[used..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn refused(refusal: &Refusal) -> io::Result<Vec<u8>> {
    let body = format!("{}\n", refusal.text);
    let mut response = Response::new(());
    *response.status_mut() = refusal.status;
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    put(CONNECTION, "close");
    put(CONTENT_TYPE, "text/plain; charset=utf-8");
    put(CONTENT_LENGTH, &body.len().to_string());
    if refusal.status == StatusCode::UNAUTHORIZED {
        put(WWW_AUTHENTICATE, "Basic realm=\"heliosproxy\", charset=\"UTF-8\"");
    }
    let mut answer = Vec::new();
    write_response(&mut answer, &response).map_err(io::Error::other)?;
    answer.extend_from_slice(body.as_bytes());
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let builder = headers.iter().fold(Request::builder(), |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap()
    }

    #[test]
    fn only_listed_origins_may_connect() {
        let allowed = [String::from("https://app.example.com")];
        let from = |origin| check_origin(&request(&[("Origin", origin)]), &allowed).is_ok();
        assert!(from("https://app.example.com"));
        assert!(!from("https://app.example.com.evil.example"));
        assert!(!from("http://app.example.com"));
        assert!(!from("null"));
        assert!(check_origin(&request(&[]), &allowed).is_ok());
        assert!(check_origin(&request(&[("Origin", "https://x")]), &["*".into()]).is_ok());
        assert!(check_origin(&request(&[("Origin", "https://x")]), &[]).is_err());
    }

    #[test]
    fn a_subprotocol_stands_for_the_header() {
        let both = format!("{PROTOCOL}, {AUTHORIZATION_PROTOCOL}{}", URL_SAFE_NO_PAD.encode("Bearer abc"));
        let request = request(&[("Sec-WebSocket-Protocol", &both)]);
        assert_eq!(authorization(&request, &protocols(&request)).as_deref(), Some("Bearer abc"));
    }

    #[test]
    fn query_strings_are_decoded() {
        assert_eq!(parameter("a=1&database=my%20d%C3%A4ta+x%", "database").as_deref(), Some("my däta x%"));
        assert_eq!(parameter("", "database"), None);
    }
}
