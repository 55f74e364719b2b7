//! Whether whoever is at the other end of a connection still is.
//!
//! **Invariant.** A sign of life is something that only the other end can have caused: bytes from it, or room for more bytes to it
//! where there was none. Writing into a buffer that has room proves nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// When there was a sign of life last.
#[derive(Debug)]
pub struct Pulse {
    since: Instant,
    /// Milliseconds after that.
    last: AtomicU64,
}

/// A stream whose signs of life are noted.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    pulse: Arc<Pulse>,
    /// There was no room for what was to be written.
    full: bool,
}

impl Pulse {
    fn beat(&self) {
        self.last.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Waits until there has been none for so long.
    pub async fn stops(&self, silence: Duration) {
        loop {
            let last = self.since + Duration::from_millis(self.last.load(Ordering::Relaxed));
            if last.elapsed() >= silence {
                return;
            }
            tokio::time::sleep_until(last + silence).await;
        }
    }
}

impl<S> Watched<S> {
    pub fn new(stream: S) -> (Self, Arc<Pulse>) {
        let pulse = Arc::new(Pulse { since: Instant::now(), last: AtomicU64::new(0) });
        (Self { stream, pulse: pulse.clone(), full: false }, pulse)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pulse.beat();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if self.full && matches!(polled, Poll::Ready(Ok(written)) if written > 0) {
            self.pulse.beat();
        }
        self.full = polled.is_pending();
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn stopped(pulse: &Pulse) -> bool {
        tokio::time::timeout(Duration::ZERO, pulse.stops(3 * SECOND)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_written_into_a_buffer_is_no_sign_of_life() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let (mut watched, pulse) = Watched::new(ours);
        for _ in 0..3 {
            assert!(!stopped(&pulse).await);
            watched.write_all(b"heartbeat").await.unwrap();
            tokio::time::advance(SECOND).await;
        }
        assert!(stopped(&pulse).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_and_what_is_taken_are() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let (mut watched, pulse) = Watched::new(ours);
        tokio::time::advance(2 * SECOND).await;
        theirs.write_all(b"pong").await.unwrap();
        watched.read_exact(&mut [0; 4]).await.unwrap();
        tokio::time::advance(2 * SECOND).await;
        assert!(!stopped(&pulse).await);

        let write = watched.write_all(b"more than there is room for");
        let read = async {
            tokio::time::advance(SECOND / 2).await;
            theirs.read_exact(&mut [0; 20]).await.unwrap();
        };
        let (written, ()) = tokio::join!(write, read);
        written.unwrap();
        tokio::time::advance(2 * SECOND).await;
        assert!(!stopped(&pulse).await);
        tokio::time::advance(SECOND).await;
        assert!(stopped(&pulse).await);
    }
}
