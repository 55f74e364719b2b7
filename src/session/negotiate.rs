use crate::wire::{error::ErrorResponse, startup::*, stream::Stream, tls::ClientTlsAcceptor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
pub enum NegotiateError { Gone, Refused(Stream, ErrorResponse) }
pub async fn negotiate(mut stream: Stream, _: Option<&ClientTlsAcceptor>) -> Result<(Stream, FirstPacket), NegotiateError> {
    loop {
        let mut field = [0; 4];
        stream.read_exact(&mut field).await.map_err(|_| NegotiateError::Gone)?;
        let length = match packet_length(field) { Ok(l) => l, Err(e) => return Err(NegotiateError::Refused(stream, (&e).into())) };
        let mut raw = vec![0; length];
        raw[..4].copy_from_slice(&field);
        stream.read_exact(&mut raw[4..]).await.map_err(|_| NegotiateError::Gone)?;
        match FirstPacket::decode(raw.into()) {
            Ok(FirstPacket::Ssl | FirstPacket::GssEnc) => stream.write_all(b"N").await.map_err(|_| NegotiateError::Gone)?,
            Ok(packet) => return Ok((stream, packet)),
            Err(e) => return Err(NegotiateError::Refused(stream, (&e).into())),
        }
    }
}
