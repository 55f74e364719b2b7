//! Everybody pauses, and what is known is compared with what is there.

use rand::Rng;
use rand::rngs::StdRng;

use super::cells::{Bounds, EACH, Family};
use super::connection::{Connection, How, Request};
use super::facts::{Fact, refute};
use super::reads::{self, EACH_FAMILY};
use super::schema::{STOCK, survey};
use super::world::World;
use crate::harness::wait_until;

/// Rows of `log` at which it is truncated, and rows deleted of a bucket of `stock` at which it is filled up.
const LOG_IS_LONG: i64 = 200;
const STOCK_IS_LOW: i64 = STOCK / 2;

/// Waits until nobody is at work, counts the cells at PostgreSQL itself, lets every read be checked both at PostgreSQL and through the
/// proxy, and makes room.
pub async fn audit(world: &World, rng: &mut StdRng) {
    let _alone = world.gate.write().await;
    if world.is_over() {
        return;
    }
    let stage = &world.stage;
    let direct = Connection::open(stage.cluster.port, &stage.database, "audit").await;
    let Ok(mut direct) = direct else { panic!("PostgreSQL takes no connection") };
    until_the_ended_are_gone(world, &mut direct).await;
    roll_back_what_is_prepared(&mut direct).await;
    for family in Family::ALL {
        settle(world, &mut direct, family).await;
    }
    let exact = Bounds { low: world.register.low(), high: world.register.high() };
    for _ in 0..2 {
        read_everything(world, &mut direct, &exact, rng.random_range(0..EACH), "PostgreSQL itself").await;
    }
    if world.is_over() {
        return;
    }
    // A process that is terminated now was to be, some operations ago; then the next audit does this.
    if let Ok(mut proxied) = Connection::open(stage.proxy.port, &stage.database, "checked audit").await {
        for _ in 0..2 {
            read_everything(world, &mut proxied, &exact, rng.random_range(0..EACH), "the proxy, all others silent,")
                .await;
        }
        make_room(world, &mut proxied).await;
    }
    world.count("audit");
}

/// A process that a client has left may still finish its write.
async fn until_the_ended_are_gone(world: &World, direct: &mut Connection) {
    let ended = std::mem::take(&mut *world.ended.lock().unwrap());
    if ended.is_empty() {
        return;
    }
    let names = ended.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    // Where connections are shared, one whose client has left while it was idle is kept under the client's name for the next one.
    let kept = match world.settings.connections {
        None => "",
        Some(_) => " AND NOT (state = 'idle' AND state_change < now() - interval '2 seconds')",
    };
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name IN ({names}){kept}");
    wait_until("the processes of ended connections are gone", async || {
        direct.ask(&Request::new(&sql, Vec::new()), How::Simple).await.expect("an answer").rows == [[0]]
    })
    .await;
}

/// Clients whose connection ended between the two phases leave such transactions, and nobody commits them.
async fn roll_back_what_is_prepared(direct: &mut Connection) {
    let sql = "SELECT gid::int8 FROM pg_prepared_xacts WHERE database = current_database()";
    let prepared = direct.ask(&Request::new(sql, Vec::new()), How::Simple).await.expect("an answer").rows;
    for name in prepared.into_iter().flatten() {
        let roll_back = Request::new(&format!("ROLLBACK PREPARED '{name}'"), Vec::new());
        direct.ask(&roll_back, How::Simple).await.expect("an answer");
    }
}

/// Outcomes that were unknown are known from here on.
async fn settle(world: &World, direct: &mut Connection, family: Family) {
    let answer = direct.ask(&Request::new(survey(family), Vec::new()), How::Simple).await.expect("an answer");
    assert_eq!(answer.rows.len(), EACH as usize, "{family:?} has as many cells: {answer:?}");
    let facts: Vec<_> = answer.rows.iter().map(|row| Fact::Value(family.cell(row[0]), row[1])).collect();
    let bounds = Bounds { low: world.register.low(), high: world.register.high() };
    if let Some(why) = refute(&facts, &bounds) {
        let what = "PostgreSQL itself: a write was lost or invented, or the checker is wrong about what it does";
        world.violated(why, what, &facts, Some(&bounds));
    }
    for row in answer.rows {
        world.register.settle(family.cell(row[0]), row[1]);
    }
}

/// Every read there is, when only one answer is right.
async fn read_everything(world: &World, connection: &mut Connection, exact: &Bounds, id: i64, whose: &str) {
    for (family, which) in Family::ALL.into_iter().flat_map(|family| (0..EACH_FAMILY).map(move |which| (family, which)))
    {
        let read = reads::make(family, which, id);
        let Ok(answer) = connection.ask(&read.request, How::Simple).await else { return };
        if let Some((code, message)) = &answer.error {
            if code != "57P01" {
                world.violated(format!("unexpected error {code}: {message}"), &read.request.inlined(), &[], None);
            }
            return;
        }
        let facts = read.facts(&answer.rows);
        if let Some(why) = refute(&facts, exact) {
            let what = format!("the answer of {whose} to {}\n{:?}", read.request.inlined(), answer.rows);
            world.violated(why, &what, &facts, Some(exact));
        }
    }
}

/// Empties what has grown and fills what has shrunk: their cells begin at 0 again.
async fn make_room(world: &World, proxied: &mut Connection) {
    let low = world.register.low();
    let rooms = [
        (Family::Log, LOG_IS_LONG, "TRUNCATE log"),
        (
            Family::Stock,
            STOCK_IS_LOW,
            "DELETE FROM stock; INSERT INTO stock SELECT bucket, n FROM generate_series(0, 5) bucket, generate_series(1, 300) n",
        ),
    ];
    for (family, limit, sql) in rooms {
        if family.cells().any(|cell| low.of(cell) >= limit) {
            let answer = proxied.ask(&Request::new(sql, Vec::new()), How::Simple).await;
            match answer {
                Ok(answer) if answer.error.is_none() => family.cells().for_each(|cell| world.register.settle(cell, 0)),
                unknown => panic!("nobody terminates anything now: {unknown:?}"),
            }
            world.count("make room");
        }
    }
}
