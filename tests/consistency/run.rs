//! Runs, and what must come of them.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::LocalSet;

use super::cells::Family;
use super::client::Client;
use super::schema::SETUP;
use super::world::{Settings, Violation, World};
use super::writes;
use crate::harness::{Options, Stage};

const CLIENTS: u64 = 8;
/// Until a fault must have been found. It takes a second or two; the rest is for a machine that is busy with other things.
const FAULT_DEADLINE: Duration = Duration::from_secs(120);
/// Reads that must have come from the cache, of a hundred, for a run to prove anything.
const LEAST_HITS: u64 = 5;

#[tokio::test]
async fn every_answer_is_possible_under_a_random_workload() {
    let settings = Settings {
        seed: environment("CONSISTENCY_SEED").unwrap_or_else(rand::random),
        duration: Duration::from_secs(environment("CONSISTENCY_SECONDS").unwrap_or(15)),
        fault: std::env::var("CONSISTENCY_FAULT").ok().map(|kind| known(&kind)),
        connections: None,
    };
    prove(settings).await;
}

/// The same with fewer upstream connections than clients, whose settings are all different.
#[tokio::test]
async fn every_answer_is_possible_on_few_shared_connections() {
    let settings = Settings {
        seed: environment("CONSISTENCY_SEED").unwrap_or_else(rand::random),
        duration: Duration::from_secs(environment("CONSISTENCY_SECONDS").unwrap_or(15)),
        fault: None,
        connections: Some(5),
    };
    prove(settings).await;
}

async fn prove(settings: Settings) {
    let (world, violation) = run(settings).await;
    if let Some(violation) = violation {
        panic!("{violation}");
    }
    let (hits, reads) = (world.stage.proxy.hits().await, world.counts()["read"]);
    let counters = world.stage.proxy.cache_counters().await;
    assert!(
        hits * 100 >= reads * LEAST_HITS,
        "{hits} of {reads} reads from the cache: this proves nothing\n{counters}"
    );
}

/// Each kind of write that goes past the proxy now and then is what an invalidation would be that gets lost.
#[tokio::test]
async fn an_invalidation_that_gets_lost_is_noticed() {
    for kind in ["update by key", "key change", "trigger", "copy"] {
        let settings =
            Settings { seed: rand::random(), duration: FAULT_DEADLINE, fault: Some(known(kind)), connections: None };
        let (world, violation) = run(settings).await;
        match violation {
            Some(violation) => assert!(!violation.why.contains("unexpected error"), "{violation}"),
            None => panic!("{} operations, and no lost {kind:?} was noticed", world.operations()),
        }
    }
}

#[test]
fn every_family_is_written() {
    for family in Family::ALL {
        assert!(writes::kinds().any(|kind| writes::family(kind) == Some(family)), "{family:?}");
    }
}

/// Everybody at work until the time is over or something is wrong.
async fn run(settings: Settings) -> (Arc<World>, Option<Violation>) {
    say(&format!(
        "consistency: seed {}{}",
        settings.seed,
        match settings.fault {
            Some(kind) => format!(", some of {kind:?} past the proxy"),
            None => String::new(),
        }
    ));
    let stage = Stage::with(match settings.connections {
        None => Options::default(),
        // What nobody uses is closed soon: an audit waits until what clients have left is gone.
        Some(connections) => Options::default()
            .arg("--auth")
            .arg("trust")
            .key("pool.mode", "auto")
            .key("pool.max_upstream_connections", connections)
            .key("pool.idle_timeout_secs", 1),
    })
    .await;
    stage.direct().await.run(SETUP).await;
    let world = Arc::new(World::new(stage, settings));
    let together = LocalSet::new();
    let clients = (0..CLIENTS).map(|number| together.spawn_local(Client::new(world.clone(), number).live()));
    let clients: Vec<_> = clients.collect();
    together.await;
    for client in clients {
        client.await.expect("no client fails");
    }
    let (hits, reads) = (world.stage.proxy.hits().await, world.counts().get("read").copied().unwrap_or_default());
    let violation = world.violation();
    say(&format!(
        "consistency: seed {}, {} operations in {:.1?}, {hits} of {reads} reads from the cache, {}\n  {}",
        world.settings.seed,
        world.operations(),
        world.now(),
        violation.as_ref().map_or("all possible", |violation| violation.why.as_str()),
        world.counts().iter().map(|(kind, count)| format!("{kind}: {count}")).collect::<Vec<_>>().join(", ")
    ));
    (world, violation)
}

/// Said even by a test that succeeds: without the seed nobody can run it again.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {value:?}")))
}

fn known(kind: &str) -> &'static str {
    let kinds: Vec<_> = writes::kinds().collect();
    kinds.iter().find(|known| **known == kind).unwrap_or_else(|| panic!("CONSISTENCY_FAULT must be one of {kinds:?}"))
}
