use std::io::Write;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::upstream::peer::{Address, Peer};
use crate::wire::startup::{FirstPacket, put_startup};
use crate::wire::stream::Stream;

fn startup(database: &str) -> StartupMessage {
    startup_of("u", database)
}

fn startup_of(user: &str, database: &str) -> StartupMessage {
    let mut raw = BytesMut::new();
    put_startup(&mut raw, 196_608, [(&b"user"[..], user.as_bytes()), (b"database", database.as_bytes())]);
    match FirstPacket::decode(raw.freeze()) {
        Ok(FirstPacket::Startup(startup)) => startup,
        other => panic!("{other:?}"),
    }
}

fn key(database: &str) -> PoolKey {
    PoolKey::new(&startup(database), &UpstreamSecret::None, 0)
}

fn owner(user: &str, database: &str) -> Owner {
    Owner::of(&startup_of(user, database))
}

/// The answers of a server that has nothing left.
const CLEAN: &[u8] = b"C\0\0\0\x10DISCARD ALL\0Z\0\0\0\x05I\
    T\0\0\0\x06\0\0D\0\0\0\x0b\0\x01\0\0\0\x01tC\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";

/// A connection, and a server at its other end that answers what cleans it with `answer`.
fn connection(answer: &[u8]) -> (Connection, tokio::task::JoinHandle<UnixStream>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let answer = answer.to_vec();
    let server = tokio::spawn(async move {
        let mut query = [0; 17];
        theirs.read_exact(&mut query).await.unwrap();
        assert_eq!(&query[5..], b"DISCARD ALL\0");
        theirs.write_all(&answer).await.unwrap();
        theirs
    });
    let connection = Connection {
        stream: Stream::Unix(ours),
        peer: Peer { name: String::new(), address: Address::Unix(String::new()) },
        buffer: BytesMut::new(),
        parameters: vec![(Bytes::from_static(b"TimeZone"), Bytes::from_static(b"UTC"))],
        pid: 1,
        secret: Bytes::new(),
        notices: Vec::new(),
    };
    (connection, server)
}

fn pool(max: usize, max_idle: usize) -> Pool {
    Pool::new(&config::Pool { max_upstream_connections: max, max_idle, ..config::Pool::default() })
}

const NO_TIME: Duration = Duration::ZERO;

#[tokio::test]
async fn there_are_never_more_connections_than_allowed() {
    let pool = pool(1, 0);
    let permit = pool.acquire(owner("u", "a"), NO_TIME).await.unwrap();
    let full = pool.acquire(owner("u", "a"), NO_TIME).await.unwrap_err().to_error_response();
    assert_eq!((full.code, &*full.message), ("53300", "sorry, too many clients already"));
    drop(permit);
    pool.acquire(owner("u", "a"), NO_TIME).await.unwrap();
}

#[tokio::test]
async fn a_user_and_a_database_have_no_more_than_their_own() {
    let config = config::Pool { max_connections_per_user: 2, max_connections_per_database: 3, ..Default::default() };
    let pool = Pool::new(&config);
    let acquire = async |user, database| pool.acquire(owner(user, database), NO_TIME).await;
    let first = acquire("u", "a").await.unwrap();
    let _second = acquire("u", "b").await.unwrap();
    acquire("u", "c").await.expect_err("the user has two");
    let _third = acquire("v", "a").await.unwrap();
    let _fourth = acquire("w", "a").await.unwrap();
    acquire("x", "a").await.expect_err("three are in the database");
    drop(first);
    let _fifth = acquire("x", "a").await.unwrap();
    let _sixth = acquire("u", "c").await.unwrap();
    acquire("u", "d").await.expect_err("the user has two again");
    pool.set_limits(&config::Pool::default());
    acquire("u", "d").await.expect("there are no such limits any more");
}

#[tokio::test]
async fn who_waits_for_a_limit_of_his_user_is_helped_by_an_idle_connection_of_that_user_only() {
    let config = config::Pool { max_connections_per_user: 1, max_idle: 4, ..Default::default() };
    let pool = Pool::new(&config);
    let mut servers = Vec::new();
    for user in ["u", "v"] {
        let (connection, server) = connection(CLEAN);
        let permit = pool.acquire(owner(user, "a"), NO_TIME).await.unwrap();
        let key = PoolKey::new(&startup_of(user, "a"), &UpstreamSecret::None, 0);
        pool.give_back(Backend::new(connection, permit), key).await;
        servers.push(server.await.unwrap());
    }
    assert_eq!(pool.idle_connections(), 2);
    let _permit = pool.acquire(owner("u", "b"), NO_TIME).await.expect("the idle one of that user was closed");
    assert_eq!(pool.idle_connections(), 1);
    pool.acquire(owner("u", "c"), NO_TIME).await.expect_err("closing the other user's would not help");
    assert_eq!(pool.idle_connections(), 1);
}

#[tokio::test]
async fn a_clean_connection_is_used_again_under_its_own_key_only() {
    let pool = pool(2, 1);
    let (connection, server) = connection(CLEAN);
    pool.give_back(Backend::new(connection, pool.acquire(owner("u", "a"), NO_TIME).await.unwrap()), key("a")).await;
    let _server = server.await.unwrap();
    assert_eq!(pool.idle_connections(), 1);
    assert!(pool.take(&key("b")).is_none());
    assert!(pool.take(&key("a")).is_some());
    assert!(pool.take(&key("a")).is_none());
}

#[test]
fn the_thread_that_takes_a_connection_drives_it() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pool = pool(1, 1);
    let first = runtime();
    let server = first.block_on(async {
        let (connection, server) = connection(CLEAN);
        pool.give_back(Backend::new(connection, pool.acquire(owner("u", "a"), NO_TIME).await.unwrap()), key("a")).await;
        server.await.unwrap().into_std().unwrap()
    });
    // What it drove is not driven any more.
    drop(first);
    runtime().block_on(async {
        let (mut connection, ..) = pool.take(&key("a")).unwrap();
        (&server).write_all(b"!").unwrap();
        assert_eq!(connection.stream.read_u8().await.unwrap(), b'!');
    });
}

#[tokio::test]
async fn what_discard_all_reports_is_kept() {
    let (mut connection, server) = connection(&[b"S\0\0\0\x12TimeZone\0Mars\0", CLEAN].concat());
    let mut reported = Vec::new();
    let report = |name: &[u8], value: &[u8]| reported.push((name.to_vec(), value.to_vec()));
    assert!(clean(&mut connection.stream, &mut connection.buffer, report).await.is_some());
    assert_eq!(reported, [(b"TimeZone".to_vec(), b"Mars".to_vec())]);
    server.await.unwrap();
}

#[tokio::test]
async fn a_connection_that_does_not_come_clean_is_closed() {
    let temporary: Vec<u8> = CLEAN.iter().map(|byte| if *byte == b't' { b'f' } else { *byte }).collect();
    for answer in [
        &b"Z\0\0\0\x05T"[..],
        b"E\0\0\0\x05\0Z\0\0\0\x05I",
        b"Z\0\0\0\x05IZ\0\0\0\x05I",
        &[CLEAN, b"N\0\0\0\x04"].concat(),
        &temporary,
        b"D\0\0\0\x04",
        b"",
    ] {
        let pool = pool(1, 1);
        let (connection, server) = connection(answer);
        let close = tokio::spawn(async move { drop(server.await.unwrap()) });
        pool.give_back(Backend::new(connection, pool.acquire(owner("u", "a"), NO_TIME).await.unwrap()), key("a")).await;
        assert_eq!(pool.idle_connections(), 0, "{answer:?}");
        pool.acquire(owner("u", "a"), NO_TIME).await.expect("its permit is free again");
        close.await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_has_ended_is_not_handed_out() {
    let pool = pool(1, 1);
    let (connection, server) = connection(CLEAN);
    pool.give_back(Backend::new(connection, pool.acquire(owner("u", "a"), NO_TIME).await.unwrap()), key("a")).await;
    drop(server.await.unwrap());
    assert!(pool.take(&key("a")).is_none());
    pool.acquire(owner("u", "a"), NO_TIME).await.expect("its permit is free again");
}

#[tokio::test]
async fn an_idle_connection_gives_way_to_another_key() {
    let pool = pool(1, 1);
    let (connection, server) = connection(CLEAN);
    pool.give_back(Backend::new(connection, pool.acquire(owner("u", "a"), NO_TIME).await.unwrap()), key("a")).await;
    let _server = server.await.unwrap();
    pool.acquire(owner("u", "a"), NO_TIME).await.expect("the idle one was closed");
}
