//! A TCP relay between proxy and server, and the weather on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::port;

/// What becomes of the bytes that come to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Clear,
    /// Connections end on both sides at once; new ones end before they have begun.
    Cut,
    /// New connections end before they have begun; those that there are go on.
    Shut,
    /// Everything is accepted, nothing comes through: the other side seems to hang.
    Frozen,
    /// Everything comes through but the end of a connection.
    Endless,
    /// A few bytes at a time, with a pause between them.
    Slow(usize, Duration),
}

/// Relays to the server as the weather allows.
pub struct FaultRelay {
    pub port: u16,
    weather: Arc<watch::Sender<Weather>>,
    /// Bytes that still come from the server before the weather turns to [`Weather::Cut`].
    left: Arc<AtomicI64>,
}

impl FaultRelay {
    pub async fn to(target: u16) -> Self {
        let port = port::free();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let weather = Arc::new(watch::Sender::new(Weather::Clear));
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let relay = Self { port, weather: weather.clone(), left: left.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !matches!(*weather.borrow(), Weather::Cut | Weather::Shut) {
                    tokio::spawn(carry(client, target, weather.clone(), left.clone()));
                }
            }
        });
        relay
    }

    pub fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Ends every connection and refuses new ones.
    pub fn cut(&self) {
        self.turn(Weather::Cut);
    }

    /// As [`cut`](Self::cut), once so many more bytes have come from the server.
    pub fn cut_after(&self, bytes: i64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    pub fn is_cut(&self) -> bool {
        *self.weather.borrow() == Weather::Cut
    }

    pub fn mend(&self) {
        self.left.store(i64::MAX, Ordering::SeqCst);
        self.turn(Weather::Clear);
    }
}

async fn carry(client: TcpStream, target: u16, weather: Arc<watch::Sender<Weather>>, left: Arc<AtomicI64>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut is_cut = weather.subscribe();
    let unlimited = Arc::new(AtomicI64::new(i64::MAX));
    tokio::select! {
        () = pump(from_client, to_server, weather.clone(), unlimited) => {}
        () = pump(from_server, to_client, weather.clone(), left) => {}
        _ = is_cut.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

/// Carries one direction to its end. The other one ends with it.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    weather: Arc<watch::Sender<Weather>>,
    left: Arc<AtomicI64>,
) {
    let mut now = weather.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let most = match *now.borrow() {
            Weather::Slow(bytes, _) => bytes.min(buffer.len()),
            _ => buffer.len(),
        };
        let Ok(read @ 1..) = from.read(&mut buffer[..most]).await else {
            let _ = now.wait_for(|weather| *weather != Weather::Endless).await;
            return;
        };
        let Ok(state) = now.wait_for(|weather| *weather != Weather::Frozen).await.map(|state| *state) else { return };
        if let Weather::Slow(_, pause) = state {
            tokio::time::sleep(pause).await;
        }
        let before = left.fetch_sub(read as i64, Ordering::SeqCst);
        let pass = usize::try_from(before.clamp(0, read as i64)).unwrap_or_default();
        if to.write_all(&buffer[..pass]).await.is_err() {
            return;
        }
        if pass < read {
            weather.send_replace(Weather::Cut);
            return;
        }
    }
}
