//! PAUSE and RESUME, and what ties sessions to their connections.

use std::future::Future;
use std::task::Poll;

use crate::harness::raw::{Batch, Raw, cancel};
use crate::harness::{Client, Cluster, Options, Stage, wait_until, within};

fn options() -> Options {
    Options::default().arg("--auth").arg("trust").key("admin.users", "admin").key("pool.mode", "auto")
}

async fn admin(stage: &Stage) -> Client {
    Client::connect(stage.proxy.port, "admin", "helios").await
}

/// Polls once.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx))).await
}

/// Whether it has begun and not ended; what is sent by then has been sent.
async fn begin(future: &mut (impl Future + Unpin)) -> bool {
    poll_once(future).await.is_pending()
}

#[tokio::test]
async fn a_server_can_be_restarted_behind_a_pause_and_no_client_notices() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(false)));
    let stage = Stage::on(cluster, options()).await;
    let admin = admin(&stage).await;
    let client = stage.client().await;
    client.run("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    client.run("BEGIN").await;
    let mut pausing = Box::pin(admin.batch_execute("PAUSE 60"));
    assert!(begin(&mut pausing).await, "a transaction is open");
    // The client ends its transaction when it likes.
    client.run("UPDATE t SET v = 2").await;
    client.run("COMMIT").await;
    within("the pause", pausing).await.unwrap();

    let mut held = Box::pin(client.simple_query("SELECT v FROM t"));
    assert!(begin(&mut held).await);
    let mut newcomer = Box::pin(stage.client());
    assert!(begin(&mut newcomer).await);
    cluster.control("restart", &["-m", "fast"]);
    assert!(begin(&mut held).await && begin(&mut newcomer).await, "they wait");
    admin.run("RESUME").await;
    let rows = within("the answer", held).await.expect("the client has not noticed");
    assert!(format!("{rows:?}").contains('2'), "{rows:?}");
    assert_eq!(within("the newcomer", newcomer).await.one("SELECT v FROM t").await, "2");
}

#[tokio::test]
async fn a_pause_that_cannot_come_about_or_is_given_up_holds_nobody_back() {
    let stage = Stage::with(options()).await;
    let admin = admin(&stage).await;
    let client = stage.client().await;
    client.run("BEGIN").await;
    assert_eq!(admin.fails("PAUSE 1").await, "55000");
    let other = stage.client().await;
    assert_eq!(other.one("SELECT 1").await, "1", "nobody is held back");
    let mut patient = Raw::ready(stage.proxy.port, "admin", "helios").await;
    let (number, key) = patient.key();
    patient.send_batch(Batch::new().query("PAUSE")).await;
    let cancelled = async {
        let mut answer = std::pin::pin!(patient.until_ready());
        // Until it has begun there is nothing to cancel.
        loop {
            cancel(stage.proxy.port, number, &key).await;
            if let Poll::Ready(frames) = poll_once(&mut answer).await {
                return frames;
            }
        }
    };
    let frames = within("the end of the pause", cancelled).await;
    assert_eq!(frames[0].field('C').as_deref(), Some("57014"), "{frames:?}");
    assert_eq!(other.one("SELECT 1").await, "1", "nobody is held back");
    client.run("COMMIT").await;
    admin.run("PAUSE").await;
    assert_eq!(admin.fails("PAUSE").await, "55000");
    admin.run("RESUME; RESUME").await;
    assert_eq!(admin.fails("PAUSE soon").await, "42601");
    assert_eq!(admin.fails("PAUSE 0").await, "22023");
    admin.run("PAUSE 1").await;
    assert_eq!(within("the end of the pause", async { other.one("SELECT 2").await }).await, "2", "it ends by itself");
}

#[tokio::test]
async fn what_ties_a_session_to_its_connection_is_shown() {
    let stage = Stage::with(options().key("pool.max_upstream_connections", 1)).await;
    let admin = admin(&stage).await;
    let listener = stage.client().await;
    assert_eq!(admin.text("SHOW PINS").await.len(), 0);
    listener.run("LISTEN c").await;
    // Somebody else who wants the only connection makes the proxy ask what holds it.
    let other = stage.client().await;
    let waiting = tokio::spawn(async move { other.one("SELECT 1").await });
    wait_until("the pin is shown", async || {
        let pins = admin.text("SHOW PINS").await;
        pins.first().and_then(|pin| pin[6].as_deref()) == Some("listen")
    })
    .await;
    listener.run("UNLISTEN *").await;
    assert_eq!(within("the connection", waiting).await.unwrap(), "1");
    wait_until("no pin is left", async || admin.text("SHOW PINS").await.is_empty()).await;
}
