//! COPY in both directions and both protocols.

use crate::harness::Stage;
use crate::harness::raw::{Batch, tags};

use super::same::{Step, same, same_answer};

const SETUP: &str =
    "CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'one'), (2, NULL); CREATE TABLE w (id int)";

fn data(text: &str) -> Batch {
    Batch::new().message(b'd', text.as_bytes())
}

#[tokio::test]
async fn copy_out() {
    let stage = Stage::setup(SETUP).await;
    same_answer(&stage, Batch::new().query("COPY t TO STDOUT"), "HddcCZ").await;
    same_answer(&stage, Batch::new().query("COPY (SELECT id FROM t) TO STDOUT WITH (FORMAT binary)"), "HdddcCZ").await;
    let extended = Batch::new()
        .parse("", "COPY t TO STDOUT CSV HEADER")
        .bind("", "", &[])
        .describe_portal("")
        .execute("", 0)
        .sync();
    same_answer(&stage, extended, "12nHdddcCZ").await;
    same_answer(&stage, Batch::new().query("COPY t TO STDOUT; SELECT 1"), "HddcCTDCZ").await;
    same_answer(&stage, Batch::new().query("COPY missing TO STDOUT"), "EZ").await;
}

#[tokio::test]
async fn copy_in() {
    let stage = Stage::setup(SETUP).await;
    let steps = [
        Step::Send(Batch::new().query("COPY w FROM STDIN")),
        Step::Until('G'),
        Step::Send(data("1\n")),
        Step::Send(data("2\n3")),
        Step::Send(data("\n")),
        Step::Ask(Batch::new().message(b'c', b"")),
        Step::Ask(Batch::new().query("SELECT count(*) > 2 FROM w")),
    ];
    same(&stage, &steps, "GCZTDCZ").await;
    let everything_at_once =
        Batch::new().query("COPY w FROM STDIN").bytes(&data("4\n").0).message(b'c', b"").query("SELECT 1");
    same(&stage, &[Step::Send(everything_at_once), Step::Until('Z'), Step::Until('Z')], "GCZTDCZ").await;
}

#[tokio::test]
async fn copy_in_over_the_extended_protocol() {
    let stage = Stage::setup(SETUP).await;
    // Some drivers send the Sync before the data (the server then ignores it), others after.
    let before = || Batch::new().parse("", "COPY w FROM STDIN").bind("", "", &[]).execute("", 0);
    let steps = [
        Step::Send(before().flush()),
        Step::Until('G'),
        Step::Send(data("5\n")),
        Step::Ask(Batch::new().message(b'c', b"").sync()),
    ];
    same(&stage, &steps, "12GCZ").await;
    let steps = [
        Step::Send(before().sync()),
        Step::Until('G'),
        Step::Send(data("6\n")),
        Step::Ask(Batch::new().message(b'c', b"").sync()),
        Step::Ask(Batch::new().query("SELECT 1")),
    ];
    same(&stage, &steps, "12GCZTDCZ").await;
    let ignored = [
        Step::Send(before().flush()),
        Step::Until('G'),
        Step::Send(data("7\n").flush()),
        Step::Send(Batch::new().sync()),
        Step::Send(data("8\n")),
        Step::Ask(Batch::new().message(b'c', b"").sync()),
    ];
    same(&stage, &ignored, "12GCZ").await;
}

#[tokio::test]
async fn copy_in_that_fails() {
    let stage = Stage::setup(SETUP).await;
    let bad_row = [
        Step::Send(Batch::new().query("COPY w FROM STDIN")),
        Step::Until('G'),
        Step::Send(data("not a number\n")),
        Step::Send(data("1\n")),
        Step::Ask(Batch::new().message(b'c', b"")),
        Step::Ask(Batch::new().query("SELECT 1")),
    ];
    same(&stage, &bad_row, "GEZTDCZ").await;
    let given_up = [
        Step::Send(Batch::new().query("COPY w FROM STDIN")),
        Step::Until('G'),
        Step::Send(data("1\n")),
        Step::Ask(Batch::new().message(b'f', b"changed my mind\0")),
    ];
    same(&stage, &given_up, "GEZ").await;
    let bad_row_extended = [
        Step::Send(Batch::new().parse("", "COPY w FROM STDIN").bind("", "", &[]).execute("", 0).flush()),
        Step::Until('G'),
        Step::Send(data("not a number\n").flush()),
        Step::Until('E'),
        Step::Send(data("1\n")),
        Step::Ask(Batch::new().message(b'c', b"").sync()),
        Step::Ask(Batch::new().query("SELECT 1")),
    ];
    // The server sees no row boundary before it asks for more data, so the error comes when the row is complete.
    same(&stage, &bad_row_extended, "12GEZTDCZ").await;
    // A message that has no place in a COPY ends the connection, in the server's own words.
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    let mut heard = Vec::new();
    for raw in [&mut direct, &mut proxied] {
        raw.send_batch(Batch::new().query("COPY w FROM STDIN")).await;
        raw.until('G').await;
        raw.send_batch(Batch::new().query("SELECT 2")).await;
        heard.push(raw.until_closed().await);
    }
    assert_eq!(tags(&heard[0]), "EE");
    assert_eq!(heard[0], heard[1]);
}

#[tokio::test]
async fn copy_in_of_many_megabytes_in_one_message() {
    let stage = Stage::setup(SETUP).await;
    let mut raw = stage.raw().await;
    let rows = "123456\n".repeat(3_000_000);
    raw.send_batch(Batch::new().query("COPY w FROM STDIN")).await;
    raw.until('G').await;
    raw.send_batch(data(&rows)).await;
    let frames = raw.ask(Batch::new().message(b'c', b"")).await;
    assert_eq!(frames[0].body, b"COPY 3000000\0");
    assert!(
        stage.proxy.memory_kb("VmHWM") < 64 * 1024,
        "{} kB for a message of {} bytes",
        stage.proxy.memory_kb("VmHWM"),
        rows.len()
    );
}
