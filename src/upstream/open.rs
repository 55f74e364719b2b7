use crate::wire::{error::*, startup, stream::Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
pub struct Target { host: String, port: u16 }
impl Target { pub fn new(c: &crate::config::Upstream) -> Result<Self, std::io::Error> { Ok(Self { host: c.host.clone(), port: c.port }) } }
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(#[from] std::io::Error);
impl OpenError { pub fn to_error_response(&self) -> ErrorResponse { ErrorResponse::fatal(sqlstate::UNABLE_TO_CONNECT, self.to_string()) } }
pub async fn open(t: &Target) -> Result<Stream, OpenError> {
    if t.host.starts_with('/') { return Ok(Stream::Unix(tokio::net::UnixStream::connect(format!("{}/.s.PGSQL.{}", t.host, t.port)).await?)); }
    let s = tokio::net::TcpStream::connect((t.host.as_str(), t.port)).await?; s.set_nodelay(true)?; Ok(Stream::Tcp(s))
}
pub async fn cancel(t: &Target, pid: i32, secret: &[u8]) -> Result<(), OpenError> {
    let mut s = open(t).await?; let mut out = bytes::BytesMut::new(); startup::put_cancel_request(&mut out, pid, secret);
    s.write_all(&out).await?; let _ = s.read(&mut [0; 1]).await; Ok(())
}
