use crate::wire::{error::*, frame, startup, stream::Stream};
use bytes::{Bytes, BytesMut, Buf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
pub enum UpstreamSecret { None }
pub struct Connection { pub stream: Stream, pub buffer: BytesMut, pub parameters: Vec<(Bytes, Bytes)>, pub pid: i32, pub secret: Bytes, pub notices: Vec<Bytes>, pub negotiate: Option<Bytes> }
#[derive(Debug)] pub enum RelayError { Refused, ClientGone, Other }
impl RelayError { pub fn to_error_response(&self) -> ErrorResponse { ErrorResponse::fatal(sqlstate::CONNECTION_FAILURE, "relay") } }
pub struct LoginError;
impl LoginError { pub fn into_frame(self) -> Result<Bytes, ErrorResponse> { Err(ErrorResponse::fatal(sqlstate::CONNECTION_FAILURE, "login")) } }
pub async fn login(_: Stream, _: u32, _: &[(Bytes, Bytes)], _: &UpstreamSecret) -> Result<Connection, LoginError> { Err(LoginError) }
pub async fn relay(client: &mut Stream, mut upstream: Stream, raw: &[u8]) -> Result<Connection, RelayError> {
    let e = |_| RelayError::Other;
    upstream.write_all(raw).await.map_err(e)?;
    let mut buffer = BytesMut::new(); let (mut parameters, mut pid, mut secret, mut notices) = (vec![], 0, Bytes::new(), vec![]);
    loop {
        let h = loop { match frame::peek(&buffer) { Ok(Some(h)) if buffer.len() >= h.total => break h, _ => { if upstream.read_buf(&mut buffer).await.map_err(e)? == 0 { return Err(RelayError::Refused) } } } };
        let f = buffer.split_to(h.total).freeze();
        let body = f.slice(5..);
        match h.tag {
            b'R' => { client.write_all(&f).await.map_err(e)?; let code = (&body[..]).get_u32(); if code != 0 && code != 12 {
                let mut hd = [0; 5]; client.read_exact(&mut hd).await.map_err(e)?; let n = u32::from_be_bytes([hd[1], hd[2], hd[3], hd[4]]) as usize - 4; let mut b = vec![0; n]; client.read_exact(&mut b).await.map_err(e)?;
                upstream.write_all(&hd).await.map_err(e)?; upstream.write_all(&b).await.map_err(e)?; } }
            b'S' => { let p: Vec<&[u8]> = body.split(|b| *b == 0).collect(); parameters.push((Bytes::copy_from_slice(p[0]), Bytes::copy_from_slice(p[1]))); }
            b'K' => { let (p, s) = startup::backend_key_data(&body).unwrap(); pid = p; secret = Bytes::copy_from_slice(s); }
            b'N' => notices.push(f),
            b'E' => { let _ = client.write_all(&f).await; return Err(RelayError::Refused); }
            b'v' => { client.write_all(&f).await.map_err(e)?; }
            b'Z' => return Ok(Connection { stream: upstream, buffer, parameters, pid, secret, notices, negotiate: None }),
            _ => return Err(RelayError::Other),
        }
    }
}
