//! One read, one write, and the order in which both are looked at.

use crate::harness::raw::Batch;
use crate::harness::{Client, Stage};

/// A read that is cached, a write that changes what it should answer.
pub struct Scenario {
    setup: String,
    read: String,
    prepare: String,
}

/// Starts with the tables and rows that a scenario is about.
pub fn given(setup: &str) -> Scenario {
    Scenario { setup: setup.into(), read: String::new(), prepare: String::new() }
}

impl Scenario {
    /// The read that must come from the cache before, and be fresh after.
    pub fn read(mut self, sql: &str) -> Self {
        self.read = sql.into();
        self
    }

    /// What the writing session does before the read is cached.
    pub fn prepare(mut self, sql: &str) -> Self {
        self.prepare = sql.into();
        self
    }

    /// Another client runs these statements, each a simple query of its own.
    pub async fn write(self, statements: &[&str]) {
        self.write_by(async |writer| {
            for sql in statements {
                writer.run(sql).await;
            }
        })
        .await;
    }

    /// Another client writes. Then every way of reading must show what a direct connection shows, to every client.
    pub async fn write_by(self, write: impl AsyncFnOnce(&Client)) {
        let stage = Stage::new().await;
        let direct = stage.direct().await;
        direct.run(&self.setup).await;
        let (reader, writer) = (stage.client().await, stage.client().await);
        if !self.prepare.is_empty() {
            writer.run(&self.prepare).await;
        }
        let read = self.read.as_str();

        let (mut raw, mut raw_direct) = (stage.raw().await, stage.raw_direct().await);
        let one_batch = || Batch::one_batch(read);

        let before = stage.cached(&reader, read).await;
        let before_binary = stage.until_hit(read, || reader.binary(read)).await;
        let before_one_batch = stage.until_hit(read, async || raw.ask(one_batch()).await).await;
        assert_eq!(before, direct.text(read).await, "the cached rows differ from the server's: {read}");
        assert_eq!(before_one_batch, raw_direct.ask(one_batch()).await, "cached in one batch: {read}");

        write(&writer).await;

        let after = direct.text(read).await;
        assert_ne!(before, after, "this write should change what the read answers: {read}");
        for (who, client) in [("reader", &reader), ("writer", &writer)] {
            assert_eq!(client.text(read).await, after, "stale rows for the {who} in the simple protocol: {read}");
            let binary = client.binary(read).await;
            assert_ne!(binary, before_binary, "stale rows for the {who} in the extended protocol: {read}");
            assert_eq!(binary, direct.binary(read).await, "wrong rows for the {who} in the extended protocol: {read}");
            assert_eq!(client.one_batch(read).await, binary, "wrong rows for the {who} in one batch: {read}");
        }
        let heard = raw.ask(one_batch()).await;
        assert_ne!(heard, before_one_batch, "stale rows in one batch: {read}");
        assert_eq!(heard, raw_direct.ask(one_batch()).await, "wrong rows in one batch: {read}");
    }
}
