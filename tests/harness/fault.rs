//! A TCP relay between proxy and server that can be cut.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::port;

/// Relays to the server until [`FaultRelay::cut`]. Cut connections end on both sides at once; new ones are refused.
pub struct FaultRelay {
    pub port: u16,
    cut: Arc<watch::Sender<bool>>,
}

impl FaultRelay {
    pub async fn to(target: u16) -> Self {
        let port = port::free();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
        let cut = Arc::new(watch::Sender::new(false));
        let relay = Self { port, cut: cut.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let is_cut = cut.subscribe();
                if !*is_cut.borrow() {
                    tokio::spawn(carry(client, target, is_cut));
                }
            }
        });
        relay
    }

    /// Ends every connection and refuses new ones.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

async fn carry(mut client: TcpStream, target: u16, mut is_cut: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = is_cut.wait_for(|cut| *cut) => {}
    }
}
