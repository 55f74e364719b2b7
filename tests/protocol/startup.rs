//! The first packets of a connection.

use crate::harness::raw::{Batch, Frame, PROTOCOL_3_0, Raw, startup, tags};
use crate::harness::{Options, Stage};

fn login(stage: &Stage) -> Vec<(&str, &str)> {
    vec![("user", "postgres"), ("database", &stage.database)]
}

/// A start-up packet to both; what the two say, without pid and key.
async fn greetings(stage: &Stage, version: u32, parameters: &[(&str, &str)]) -> [Vec<Frame>; 2] {
    let mut heard = [Vec::new(), Vec::new()];
    for (heard, port) in heard.iter_mut().zip([stage.proxy.port, stage.cluster.port]) {
        let mut raw = Raw::open(port).await;
        raw.send(&startup(version, parameters)).await;
        while let Some(frame) = raw.frame().await {
            let is_last = frame.tag == b'Z';
            match frame.tag {
                b'K' => heard.push(Frame { tag: b'K', body: vec![0; frame.body.len()] }),
                _ => heard.push(frame),
            }
            if is_last {
                break;
            }
        }
        // The order of ParameterStatus messages is nobody's promise.
        heard.sort_by(|a, b| (a.tag == b'S', &a.body).cmp(&(b.tag == b'S', &b.body)));
    }
    heard
}

#[tokio::test]
async fn a_plain_start_up_gets_the_servers_own_parameters() {
    let stage = Stage::new().await;
    let [proxied, direct] = greetings(&stage, PROTOCOL_3_0, &login(&stage)).await;
    assert_eq!(proxied, direct);
}

#[tokio::test]
async fn start_up_parameters_reach_the_server() {
    let stage = Stage::new().await;
    let parameters = [
        &login(&stage)[..],
        &[
            ("application_name", "a b"),
            ("options", "-c work_mem=5MB -c search_path=a\\,b"),
            ("DateStyle", "German"),
            ("extra_float_digits", "2"),
        ],
    ]
    .concat();
    let [proxied, direct] = greetings(&stage, PROTOCOL_3_0, &parameters).await;
    assert_eq!(proxied, direct);
    let mut raw = Raw::ready_with(stage.proxy.port, &parameters).await;
    for (setting, value) in [
        ("work_mem", "5MB"),
        ("search_path", "a,b"),
        ("DateStyle", "German, DMY"),
        ("extra_float_digits", "2"),
        ("application_name", "a b"),
    ] {
        assert_eq!(raw.query(&format!("SHOW {setting}")).await[1].text(), value, "{setting}");
    }
    assert_eq!(raw.parameter("DateStyle").as_deref(), Some("German, DMY"));
}

#[tokio::test]
async fn the_database_defaults_to_the_user() {
    let stage = Stage::new().await;
    let mut raw = Raw::ready_with(stage.proxy.port, &[("user", "postgres")]).await;
    assert_eq!(raw.query("SELECT current_database()").await[1].text(), "postgres");
}

#[tokio::test]
async fn start_up_errors_are_the_servers_own() {
    let stage = Stage::new().await;
    for (version, parameters) in [
        (PROTOCOL_3_0, vec![("user", "postgres"), ("database", "no_such_database")]),
        (PROTOCOL_3_0, vec![("user", "no_such_user"), ("database", &stage.database)]),
        (PROTOCOL_3_0, vec![("database", &stage.database)]),
        (PROTOCOL_3_0, [&login(&stage)[..], &[("options", "-c no_such_setting=1")]].concat()),
        (PROTOCOL_3_0, [&login(&stage)[..], &[("TimeZone", "Nowhere")]].concat()),
        (4 << 16, login(&stage)),
    ] {
        let [proxied, direct] = greetings(&stage, version, &parameters).await;
        // Relay mode shows the server's own words, except that file names and lines may differ.
        let essence = |frames: &[Frame]| {
            let errors = frames.iter().filter(|frame| frame.tag == b'E');
            // Which minor versions it supports is for each side to say.
            let words = |frame: &Frame| {
                frame.field('M').map(|text| text.split(": server supports").next().unwrap().to_string())
            };
            errors.map(|frame| (frame.field('S'), frame.field('C'), words(frame))).collect::<Vec<_>>()
        };
        assert_eq!(essence(&proxied), essence(&direct), "{version} {parameters:?}");
        assert!(!essence(&direct).is_empty(), "{version} {parameters:?}");
    }
}

#[tokio::test]
async fn a_newer_minor_version_and_unknown_options_are_negotiated() {
    let stage = Stage::new().await;
    for (version, extra) in [
        (PROTOCOL_3_0 + 2, vec![]),
        (PROTOCOL_3_0 + 9, vec![]),
        (PROTOCOL_3_0, vec![("_pq_.something", "1")]),
        (PROTOCOL_3_0 + 2, vec![("_pq_.something", "1"), ("_pq_.other", "2")]),
    ] {
        let parameters = [&login(&stage)[..], &extra].concat();
        let mut raw = Raw::open(stage.proxy.port).await;
        raw.start(version, &parameters).await;
        let tags = tags(&raw.greeting);
        // The server here is PostgreSQL 15, which speaks 3.0: the proxy may speak 3.2 to its client or negotiate it down, but
        // unknown options must be named, and a version above 3.2 negotiated.
        if !extra.is_empty() || version > PROTOCOL_3_0 + 2 {
            let negotiate =
                raw.greeting.iter().find(|frame| frame.tag == b'v').unwrap_or_else(|| panic!("no negotiation: {tags}"));
            let count = u32::from_be_bytes(negotiate.body[4..8].try_into().unwrap());
            assert_eq!(count as usize, extra.len(), "{negotiate:?}");
            for (name, _) in &extra {
                assert!(negotiate.body.windows(name.len()).any(|part| part == name.as_bytes()), "{negotiate:?}");
            }
        }
        assert_eq!(raw.query("SELECT 1").await[1].text(), "1");
        let (pid, key) = raw.key();
        assert!((4..=256).contains(&key.len()));
        raw.send_batch(Batch::new().query("SELECT pg_sleep(3600)")).await;
        let direct = stage.direct().await;
        direct
            .until(
                "the query sleeps",
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
            )
            .await;
        crate::harness::raw::cancel(stage.proxy.port, pid, &key).await;
        let frames = raw.until_ready().await;
        assert!(frames.iter().any(|frame| frame.tag == b'E'), "a key of {} bytes cancels nothing", key.len());
    }
}

#[tokio::test]
async fn ssl_and_gss_requests_are_answered_and_the_connection_goes_on() {
    use tokio::io::AsyncReadExt;
    let stage = Stage::new().await;
    let mut raw = Raw::open(stage.proxy.port).await;
    for code in [80_877_104_u32, 80_877_103] {
        raw.send(&[&8_u32.to_be_bytes()[..], &code.to_be_bytes()].concat()).await;
        assert_eq!(raw.stream.read_u8().await.unwrap(), b'N', "request code {code}");
    }
    raw.start(PROTOCOL_3_0, &login(&stage)).await;
    assert_eq!(raw.query("SELECT 1").await[1].text(), "1");
}

#[tokio::test]
async fn a_replication_connection_is_relayed() {
    let stage = Stage::new().await;
    for (kind, database) in [("database", stage.database.as_str()), ("true", "")] {
        let mut parameters = vec![("user", "postgres"), ("replication", kind)];
        if !database.is_empty() {
            parameters.push(("database", database));
        }
        let mut proxied = Raw::ready_with(stage.proxy.port, &parameters).await;
        let mut direct = Raw::ready_with(stage.cluster.port, &parameters).await;
        let frames = proxied.query("IDENTIFY_SYSTEM").await;
        assert_eq!(tags(&frames), "TDCZ", "{frames:?}");
        assert_eq!(frames[1].values()[0], direct.query("IDENTIFY_SYSTEM").await[1].values()[0]);
    }
}

#[tokio::test]
async fn a_logical_replication_stream_flows_both_ways() {
    let stage = Stage::setup("CREATE TABLE t (v int); CREATE PUBLICATION p FOR TABLE t").await;
    let parameters = [&login(&stage)[..], &[("replication", "database")]].concat();
    let mut raw = Raw::ready_with(stage.proxy.port, &parameters).await;
    let slot = format!("slot_{}", stage.database);
    let frames =
        raw.query(&format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT")).await;
    assert_eq!(tags(&frames), "TDCZ", "{frames:?}");
    let start = format!("START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names 'p')");
    raw.send_batch(Batch::new().query(&start)).await;
    raw.until('W').await;
    stage.client().await.run("INSERT INTO t VALUES (42)").await;
    let inserted = async {
        loop {
            let frame = raw.frame().await.expect("a stream");
            if frame.tag == b'd' && frame.body[0] == b'w' && frame.body.get(25) == Some(&b'I') {
                break frame;
            }
        }
    };
    let frame = crate::harness::within("the inserted row", inserted).await;
    assert!(frame.body.ends_with(b"42"), "{frame:?}");
    // A status update to the server, then the end of the stream from this side.
    let mut status = vec![b'r'];
    status.extend([0; 33]);
    raw.send_batch(Batch::new().message(b'd', &status).message(b'c', b"")).await;
    let frames = raw.until_ready().await;
    assert!(frames.iter().any(|frame| frame.tag == b'c'), "{frames:?}");
}

#[tokio::test]
async fn unix_sockets_on_both_sides() {
    let sockets = tempfile::tempdir().unwrap();
    let cluster = crate::harness::cluster();
    let database = cluster.database().await;
    let upstream = format!("postgres://postgres@/{database}?host={}&port={}", cluster.dir.display(), cluster.port);
    let options = Options::default().upstream(upstream).arg("--unix-socket-dir").arg(sockets.path().display());
    let proxy = crate::harness::Proxy::start(cluster, &database, &options).await;
    let path = sockets.path().join(format!(".s.PGSQL.{}", proxy.port));
    let mut raw = Raw::open_unix(path).await;
    raw.start(PROTOCOL_3_0, &[("user", "postgres"), ("database", &database)]).await;
    assert_eq!(raw.query("SELECT inet_client_addr() IS NULL").await[1].text(), "t");
    let mut tcp = Raw::ready(proxy.port, "postgres", &database).await;
    assert_eq!(tcp.query("SELECT 1").await[1].text(), "1");
}
