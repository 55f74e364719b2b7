//! What goes wrong leaves the older process as it is.

use super::scene::{Scene, until_alone};
use crate::harness::{Options, Proxy};

const SETUP: &str = "CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)";
const READ: &str = "SELECT v FROM t WHERE k = 1";

/// One more process with these options does not start, and says so; the one that is there goes on with its cache.
async fn does_not_start(scene: &mut Scene, options: Options, says: &str) {
    let client = scene.stage.client().await;
    scene.stage.cached(&client, READ).await;
    let mut new = scene.start(&options).await;
    assert_eq!(new.ended().await, Some(1));
    assert!(new.log_text().contains(says), "{}", new.log_text());
    scene.stage.until_hit(READ, async || client.one(READ).await).await;
    assert!(scene.socket().exists());
    scene.stage.client().await.run("SELECT 1").await;
    assert_eq!(crate::harness::http::get(scene.stage.proxy.http, "/health").await.map(|answer| answer.0), Some(200));
}

#[tokio::test]
async fn a_process_that_cannot_listen_takes_nothing() {
    let mut scene = Scene::shared(SETUP).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let options = scene.options.clone().key("stream.listen", taken.local_addr().unwrap());
    does_not_start(&mut scene, options, "cannot listen on").await;
}

#[tokio::test]
async fn a_process_without_the_directory_does_not_start() {
    let mut scene = Scene::shared(SETUP).await;
    let options = Options::default().key("server.unix_socket_dir", "");
    does_not_start(&mut scene, options, "Address already in use").await;
}

#[tokio::test]
async fn a_proxy_that_listens_elsewhere_is_no_successor() {
    let mut scene = Scene::shared(SETUP).await;
    let mut new = Proxy::spawn(scene.stage.cluster, &scene.stage.database, &scene.options);
    assert_eq!(new.ended().await, Some(1));
    assert!(new.log_text().contains("another proxy"), "{}", new.log_text());
    let client = scene.stage.client().await;
    scene.stage.cached(&client, READ).await;
    assert!(scene.stage.proxy.is_running());
}

#[tokio::test]
async fn after_a_kill_of_the_older_process_the_newer_one_uses_its_cache() {
    let mut scene = Scene::shared(SETUP).await;
    let _client = scene.stage.client().await;
    let mut old = scene.upgrade().await;
    old.signal("KILL");
    old.ended().await;
    until_alone(&scene.stage.proxy).await;
    let client = scene.stage.client().await;
    scene.stage.cached(&client, READ).await;
    // Its file is still there, and in nobody's way.
    let mut second = scene.upgrade().await;
    drop(client);
    assert_eq!(second.ended().await, Some(0));
}
