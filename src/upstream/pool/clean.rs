//! What makes a connection as good as a new one.
//!
//! **Invariant.** [`clean`] succeeds only if the server has said that everything is discarded, that no temporary schema was ever made
//! (it would stay: a new session has none, and PREPARE TRANSACTION tells), that no transaction is open, and nothing else.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::wire::frame::{self, HEADER_BYTES, backend};
use crate::wire::message::backend::{ParameterStatus, data_row};
use crate::wire::message::encode;
use crate::wire::stream::Stream;

const DISCARD: &[u8] = b"DISCARD ALL";
const HAS_NO_TEMPORARY_SCHEMA: &[u8] = b"SELECT pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.=) 0";
/// Of answers that are not whole yet.
const MOST_BYTES: usize = 64 * 1024;

/// Runs `DISCARD ALL`. `None` if the connection is not clean afterwards.
pub(super) async fn clean(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    mut report: impl FnMut(&[u8], &[u8]),
) -> Option<()> {
    let mut questions = BytesMut::new();
    encode::query(&mut questions, DISCARD).ok()?;
    encode::query(&mut questions, HAS_NO_TEMPORARY_SCHEMA).ok()?;
    stream.write_all(&questions).await.ok()?;
    stream.flush().await.ok()?;
    let mut is_discarded = false;
    let mut is_new = false;
    loop {
        while let Some(header) = frame::peek(buffer).ok()? {
            if buffer.len() < header.total {
                break;
            }
            let frame = buffer.split_to(header.total);
            let body = &frame[HEADER_BYTES..];
            match header.tag {
                backend::PARAMETER_STATUS => {
                    let status = ParameterStatus::decode(body).ok()?;
                    report(status.name, status.value);
                }
                backend::DATA_ROW => is_new = is_discarded && data_row(body).ok()? == [Some(&b"t"[..])],
                backend::READY_FOR_QUERY if body != b"I" => return None,
                backend::READY_FOR_QUERY if is_discarded => return (is_new && buffer.is_empty()).then_some(()),
                backend::READY_FOR_QUERY => is_discarded = true,
                backend::ROW_DESCRIPTION
                | backend::COMMAND_COMPLETE
                | backend::NOTICE_RESPONSE
                | backend::NOTIFICATION_RESPONSE => {}
                _ => return None,
            }
        }
        if buffer.len() > MOST_BYTES || stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
