//! Nobody sees an error, however often the proxy is replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use tokio_postgres::{Config, NoTls};

use super::scene::{Scene, until_alone};
use crate::harness::client::explain;
use crate::harness::{tool, wait_until};

const SETUP: &str = "CREATE TABLE counter (id int PRIMARY KEY, v bigint NOT NULL);
    INSERT INTO counter SELECT g, 0 FROM generate_series(0, 7) g";

/// What the clients have in common.
struct Load {
    ends: AtomicBool,
    /// Of each counter, what was confirmed to somebody or read by him.
    seen: [AtomicI64; 8],
    steps: AtomicUsize,
}

/// Runs queries on connections that last for so many transactions, until the load ends. Any error fails the test.
async fn client(load: Arc<Load>, config: Config, lasts: usize, number: usize) {
    while !load.ends.load(Ordering::SeqCst) {
        let (mut client, connection) =
            config.connect(NoTls).await.unwrap_or_else(|error| panic!("{}", explain(&error)));
        let driver = tokio::spawn(connection);
        let read = client.prepare("SELECT v FROM counter WHERE id = $1").await.unwrap();
        for step in 0..lasts {
            let row = (number + step) % 8;
            let (id, seen) = (row as i32, &load.seen[row]);
            let before = seen.load(Ordering::SeqCst);
            let v: i64 =
                client.query_one(&read, &[&id]).await.unwrap_or_else(|error| panic!("{}", explain(&error))).get(0);
            assert!(v >= before, "counter {id} was {before} before, and reads as {v}");
            seen.fetch_max(v, Ordering::SeqCst);
            let transaction = client.transaction().await.unwrap();
            let v: i64 = transaction
                .query_one("UPDATE counter SET v = v + 1 WHERE id = $1 RETURNING v", &[&id])
                .await
                .unwrap_or_else(|error| panic!("{}", explain(&error)))
                .get(0);
            transaction.commit().await.unwrap_or_else(|error| panic!("{}", explain(&error)));
            seen.fetch_max(v, Ordering::SeqCst);
            load.steps.fetch_add(1, Ordering::SeqCst);
        }
        drop(client);
        driver.await.unwrap().unwrap_or_else(|error| panic!("{}", explain(&error)));
    }
}

async fn under_load(mut scene: Scene) {
    let load = Arc::new(Load { ends: AtomicBool::new(false), seen: Default::default(), steps: AtomicUsize::new(0) });
    let tcp = scene.stage.config();
    let mut unix = tcp.clone();
    unix = {
        let mut other = Config::new();
        other.host_path(scene.dir.path()).port(scene.stage.proxy.port).user("postgres");
        other.dbname(unix.get_dbname().unwrap());
        other
    };
    let mut clients = tokio::task::JoinSet::new();
    for (number, lasts) in [1, 1, 2, 5, 30, 100].into_iter().enumerate() {
        clients.spawn(client(load.clone(), tcp.clone(), lasts, number));
        clients.spawn(client(load.clone(), unix.clone(), lasts, number + 4));
    }
    // New connections all the time by a program that gives up at the first error.
    let url = format!("postgres://postgres@127.0.0.1:{}/{}", scene.stage.proxy.port, scene.stage.database);
    let script = scene.dir.path().join("script.sql");
    std::fs::write(&script, "SELECT v FROM counter WHERE id = 3;\n").unwrap();
    let script = script.to_str().unwrap().to_owned();
    let pgbench = tokio::spawn(async move {
        tool::run("pgbench", &["-n", "-C", "-c", "4", "-t", "60", "-f", &script, &url], &[]).await
    });
    let mut old = Vec::new();
    for _ in 0..3 {
        let reached = load.steps.load(Ordering::SeqCst) + 60;
        wait_until("clients get on", async || {
            load.steps.load(Ordering::SeqCst) >= reached || !clients.is_empty() && clients.try_join_next().is_some()
        })
        .await;
        old.push(scene.upgrade().await);
        assert!(scene.stage.proxy.is_running(), "it took over");
    }
    let reached = load.steps.load(Ordering::SeqCst) + 60;
    wait_until("clients get on", async || load.steps.load(Ordering::SeqCst) >= reached).await;
    let said = pgbench.await.unwrap().ok();
    assert!(said.contains("number of failed transactions: 0"), "{said}");
    load.ends.store(true, Ordering::SeqCst);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    for proxy in &mut old {
        assert_eq!(proxy.ended().await, Some(0));
    }
    let sum = scene.stage.direct().await.one("SELECT sum(v) FROM counter").await;
    assert_eq!(sum, load.steps.load(Ordering::SeqCst).to_string(), "every confirmed write has happened, once");
    until_alone(&scene.stage.proxy).await;
    let client = scene.stage.client().await;
    scene.stage.cached(&client, "SELECT v FROM counter WHERE id = 1").await;
    assert!(scene.socket().exists(), "the newest process listens there");
    drop(client);
    scene.stage.proxy.signal("TERM");
    assert_eq!(scene.stage.proxy.ended().await, Some(0));
    assert_eq!(std::fs::read_dir(scene.dir.path()).unwrap().count(), 1, "no socket is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_sees_an_error_or_what_is_stale() {
    under_load(Scene::shared(SETUP).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_with_a_connection_of_its_own_sees_an_error_or_what_is_stale() {
    under_load(Scene::new(crate::harness::Options::default().dedicated(), SETUP).await).await;
}
