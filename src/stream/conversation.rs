//! One WebSocket: the streams on it, what its client asks for, and whether it is still there.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Streams;
use super::handshake::{Guest, Socket};
use super::inside::{Account, Failure, Inside};
use super::messages::{ClientMessage, ServerMessage};
use super::outgoing::Outgoing;
use super::query::{Query, Request};
use crate::session::FAREWELL;
use crate::wire::error::sqlstate;

/// A client that gives no sign of life for so many heartbeats is gone.
const MISSED_HEARTBEATS: u32 = 3;

/// How a conversation ends: with these words, or without any if there is nobody to hear them.
type Farewell = Option<CloseFrame>;

/// Serves a client until it leaves, is gone, or the proxy ends.
pub async fn converse(streams: Arc<Streams>, guest: Guest) {
    let Guest { socket, pulse, account, session } = guest;
    let heartbeat = Duration::from_millis(streams.shared.config.load().stream.heartbeat_interval_ms);
    let (sink, source) = socket.split();
    // One message is written and one waits: whoever has another one waits with it, and asks for no more rows.
    let (out, messages) = mpsc::channel(1);
    let mut writer = tokio::spawn(write(sink, messages, heartbeat));
    let mut conversation = Conversation {
        streams,
        account,
        idle: Some(session),
        out: out.clone(),
        running: HashMap::new(),
        queries: JoinSet::new(),
        ending: false,
    };
    let farewell = tokio::select! {
        farewell = conversation.listen(source) => farewell,
        () = pulse.stops(heartbeat * MISSED_HEARTBEATS) => {
            tracing::info!(address = ?conversation.account.caller.address, "a WebSocket client is gone or takes nothing");
            None
        }
        // It cannot be written to.
        _ = &mut writer => None,
    };
    // Streams that have no more to say than their end are given time to say it.
    if farewell.is_none() || timeout(FAREWELL, conversation.end()).await.is_err() {
        writer.abort();
        conversation.end().await;
    }
    if let Some(frame) = farewell {
        // A client that does not take it loses it.
        let _ = timeout(FAREWELL, async {
            let _ = out.send(Outgoing::close(frame)).await;
            drop(out);
            let _ = (&mut writer).await;
        })
        .await;
        writer.abort();
    }
}

struct Conversation {
    streams: Arc<Streams>,
    account: Account,
    /// A session that no stream has.
    idle: Option<Inside>,
    out: mpsc::Sender<Outgoing>,
    /// What stops each stream; `None` if that is done.
    running: HashMap<String, Option<oneshot::Sender<()>>>,
    queries: JoinSet<(String, Option<Inside>)>,
    /// The proxy is shutting down.
    ending: bool,
}

impl Conversation {
    async fn listen(&mut self, mut source: SplitStream<Socket>) -> Farewell {
        let mut shutdown = self.streams.shutdown.subscribe();
        loop {
            if self.ending && self.queries.is_empty() {
                return close(CloseCode::Away, "the proxy is shutting down");
            }
            tokio::select! {
                message = source.next() => {
                    if let ControlFlow::Break(farewell) = self.hear(message).await {
                        return farewell;
                    }
                }
                Some(ended) = self.queries.join_next() => {
                    if let ControlFlow::Break(farewell) = self.has_ended(ended) {
                        return farewell;
                    }
                }
                // An error means that nobody is left who could say so.
                () = async { drop(shutdown.wait_for(|ends| *ends).await) }, if !self.ending => {
                    self.ending = true;
                    self.idle = None;
                }
            }
        }
    }

    async fn hear(&mut self, message: Option<Result<Message, Error>>) -> ControlFlow<Farewell> {
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Binary(_))) => {
                return ControlFlow::Break(close(CloseCode::Unsupported, "binary messages are not understood"));
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return ControlFlow::Continue(()),
            Some(Err(Error::Capacity(error))) => {
                return ControlFlow::Break(close(CloseCode::Size, &error.to_string()));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return ControlFlow::Break(None),
        };
        match serde_json::from_str(&text) {
            Ok(ClientMessage::StartStream { query_id, sql, params }) => {
                return self.start(Request { query_id, sql, params }).await;
            }
            Ok(ClientMessage::StopStream { query_id }) => {
                // It may have ended on its own in the meantime.
                if let Some(stop) = self.running.get_mut(&query_id).and_then(Option::take) {
                    let _ = stop.send(());
                }
            }
            Err(error) => return ControlFlow::Break(close(CloseCode::Policy, &format!("not understood: {error}"))),
        }
        ControlFlow::Continue(())
    }

    fn has_ended(&mut self, ended: Result<(String, Option<Inside>), JoinError>) -> ControlFlow<Farewell> {
        match ended {
            Ok((query_id, session)) => {
                self.running.remove(&query_id);
                self.idle = session.filter(|_| !self.ending).or(self.idle.take());
                ControlFlow::Continue(())
            }
            Err(error) => {
                tracing::error!(%error, "a stream was lost");
                ControlFlow::Break(close(CloseCode::Error, "a stream was lost"))
            }
        }
    }

    async fn start(&mut self, request: Request) -> ControlFlow<Farewell> {
        // The client may know of an end before we have taken note of it.
        while let Some(ended) = self.queries.try_join_next() {
            self.has_ended(ended)?;
        }
        if self.running.contains_key(&request.query_id) {
            // An error could not be told from the other one's.
            return ControlFlow::Break(close(CloseCode::Policy, "two streams of one query_id"));
        }
        let place = match self.place() {
            Ok(place) => place,
            Err(Failure { sqlstate, message: error }) => {
                let refused = ServerMessage::StreamError { query_id: request.query_id, error, sqlstate };
                // The writer's end is noticed elsewhere.
                let _ = self.out.send(Outgoing::message(&refused)).await;
                return ControlFlow::Continue(());
            }
        };
        let (stop, stopped) = oneshot::channel();
        self.running.insert(request.query_id.clone(), Some(stop));
        let query_id = request.query_id.clone();
        let query =
            Query { streams: self.streams.clone(), account: self.account.clone(), request, out: self.out.clone() };
        // It may have been ended in the meantime: by a time limit, or with its upstream connection.
        let idle = self.idle.take().and_then(Inside::alive);
        self.queries.spawn(async move {
            let _place = place;
            (query_id, query.run(idle, stopped).await)
        });
        ControlFlow::Continue(())
    }

    /// The right to run one more stream.
    fn place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        if self.ending {
            return Err(Failure::new(sqlstate::CANNOT_CONNECT_NOW, "the proxy is shutting down"));
        }
        self.streams.places.clone().try_acquire_owned().map_err(|_| {
            let message = "too many streams: stream.max_concurrent_streams of the proxy is reached";
            Failure::new(sqlstate::TOO_MANY_CONNECTIONS, message)
        })
    }

    /// Stops what still runs, and waits until the upstream is free. Cancel-safe.
    async fn end(&mut self) {
        self.running.clear();
        while self.queries.join_next().await.is_some() {}
    }
}

/// Writes what comes, and heartbeats in between.
async fn write(mut sink: SplitSink<Socket, Message>, mut messages: mpsc::Receiver<Outgoing>, heartbeat: Duration) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + heartbeat, heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let written = tokio::select! {
            outgoing = messages.recv() => match outgoing {
                // What it holds is given back when it has been written.
                Some(outgoing) => sink.send(outgoing.message).await,
                None => return,
            },
            _ = ticks.tick() => {
                let beat = Outgoing::message(&ServerMessage::Heartbeat { timestamp: now_ms() });
                match sink.feed(beat.message).await {
                    // What answers it is a sign of life.
                    Ok(()) => sink.send(Message::Ping(Bytes::new())).await,
                    error => error,
                }
            }
        };
        if written.is_err() {
            return;
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A reason has room for 123 bytes.
fn close(code: CloseCode, reason: &str) -> Farewell {
    let end = (0..=reason.len().min(123)).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
    Some(CloseFrame { code, reason: reason[..end].into() })
}
