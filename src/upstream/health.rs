//! Whether a connection that nobody has used for a while still has a server at its other end.
//!
//! **Invariant.** A connection that has answered is as it was before: what the server has said meanwhile (a setting that was changed by a
//! reload, a notification) is left for its next user, the answer itself is not. One that has not answered is not used again.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::wire::frame::{self, HEADER_BYTES, backend};

const SYNC: &[u8] = b"S\0\0\0\x04";
/// What a server may say before it answers.
const MOST_BYTES: usize = 64 * 1024;

/// Asks a server that is idle for an answer, and waits for it no longer than `bound`. `input` holds what was read before.
pub async fn answers(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    input: &mut BytesMut,
    bound: Duration,
) -> bool {
    tokio::time::timeout(bound, round_trip(stream, input)).await.is_ok_and(|answered| answered.is_some())
}

async fn round_trip(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), input: &mut BytesMut) -> Option<()> {
    stream.write_all(SYNC).await.ok()?;
    stream.flush().await.ok()?;
    let mut at = 0;
    loop {
        while let Some(header) = frame::peek(&input[at..]).ok()? {
            let is_whole = input.len() >= at + header.total;
            match header.tag {
                backend::READY_FOR_QUERY | backend::PARAMETER_STATUS if !is_whole => break,
                backend::NOTIFICATION_RESPONSE | backend::NOTICE_RESPONSE if !is_whole => break,
                backend::PARAMETER_STATUS | backend::NOTIFICATION_RESPONSE | backend::NOTICE_RESPONSE => {}
                backend::READY_FOR_QUERY => {
                    let is_last = input.len() == at + header.total;
                    let is_idle = input.get(at + HEADER_BYTES..) == Some(b"I");
                    input.truncate(at);
                    return (is_last && is_idle).then_some(());
                }
                _ => return None,
            }
            at += header.total;
        }
        if input.len() > MOST_BYTES || stream.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(3600);
    const SETTING: &[u8] = b"S\0\0\0\x08a\0b\0";

    /// What becomes of a connection whose server says this, a piece at a time.
    async fn ask(before: &[u8], pieces: &[&[u8]]) -> (bool, BytesMut) {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        let mut input = BytesMut::from(before);
        let server = async move {
            let mut sync = [0; 5];
            theirs.read_exact(&mut sync).await.unwrap();
            assert_eq!(sync, SYNC);
            for piece in pieces {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (answered, ()) = tokio::join!(answers(&mut ours, &mut input, BOUND), server);
        (answered, input)
    }

    #[tokio::test]
    async fn one_that_answers_keeps_what_was_said_meanwhile_but_the_answer() {
        assert_eq!(ask(b"", &[b"Z\0\0\0\x05I"]).await, (true, BytesMut::new()));
        assert_eq!(ask(b"", &[b"Z\0\0", b"\0\x05", b"I"]).await, (true, BytesMut::new()));
        let (answered, input) = ask(&SETTING[..3], &[&SETTING[3..], SETTING, b"Z\0\0\0\x05I"]).await;
        assert_eq!((answered, &input[..]), (true, &[SETTING, SETTING].concat()[..]));
    }

    #[tokio::test]
    async fn one_that_ends_is_in_a_transaction_or_says_something_else_is_not_used() {
        let answers: [&[u8]; 4] = [b"Z\0\0\0\x05T", b"E\0\0\0\x05\0", b"Z\0\0\0\x05IZ\0\0\0\x05I", b"Z\0\0"];
        assert!(!ask(b"", &[]).await.0);
        for answer in answers {
            assert!(!ask(b"", &[answer]).await.0, "{answer:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_given_up() {
        let (mut ours, _theirs) = tokio::io::duplex(1024);
        assert!(!answers(&mut ours, &mut BytesMut::new(), BOUND).await);
    }
}
