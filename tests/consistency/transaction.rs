//! A client's transaction blocks.

use rand::Rng;

use super::block::Block;
use super::cells::{Adds, Bounds, Family};
use super::client::{Client, Succeeded, VANISH_READING, VANISH_WRITING};
use super::connection::{How, Lost, Request};
use super::writes::{Place, Write};

impl Client {
    pub(super) async fn write_in_its_own_block(&mut self, write: &Write) -> Result<(), Lost> {
        let mut block = Block::new(false);
        self.command("BEGIN").await?;
        let succeeded = self.write_in(&mut block, write).await?;
        self.end(block, succeeded).await
    }

    async fn write_in(&mut self, block: &mut Block, write: &Write) -> Result<Succeeded, Lost> {
        let mut returned = None;
        for step in &write.steps {
            let mut request = step.request.clone();
            if let Some(value) = returned {
                request.sql = request.sql.replace("{v}", &format!("{value}"));
            }
            let how = self.how_to_write(std::slice::from_ref(&request));
            let (began, low) = (self.world.now(), self.world.register.low());
            let answer = self.ask(std::slice::from_ref(&request), how, VANISH_WRITING).await?;
            block.ran(&Bounds { low, high: self.world.register.high() });
            let cells = step.adds.keys().copied().collect();
            self.remember(began, format!("{how:?} {} (in a block) -> {:?}", request.inlined(), answer.error), cells);
            if let Some(error) = &answer.error {
                return Ok(self.failed(error, &request));
            }
            block.wrote(&step.added(&answer));
            returned = returned.or(answer.rows.first().map(|row| row[0]));
        }
        self.world.count(write.kind);
        Ok(true)
    }

    /// A block of a few reads and writes, with savepoints.
    pub(super) async fn transaction(&mut self) -> Result<(), Lost> {
        let mut block = Block::new(self.chance(6));
        let level = if block.is_repeatable() { "REPEATABLE READ" } else { "READ COMMITTED" };
        self.command(&format!("BEGIN ISOLATION LEVEL {level}")).await?;
        let mut family = self.world.family(&mut self.rng);
        for _ in 0..self.rng.random_range(1..8) {
            if self.chance(3) {
                family = self.world.family(&mut self.rng);
            }
            if !self.step(&mut block, family).await? {
                if !block.has_savepoint() {
                    return self.end(block, false).await;
                }
                self.command("ROLLBACK TO here").await?;
                block.rollback_to_savepoint();
            }
        }
        self.end(block, true).await
    }

    async fn step(&mut self, block: &mut Block, family: Family) -> Result<Succeeded, Lost> {
        match self.rng.random_range(0..10) {
            0 => {
                block.savepoint();
                self.command("SAVEPOINT here").await
            }
            1 if block.has_savepoint() => {
                block.rollback_to_savepoint();
                self.command("ROLLBACK TO here").await
            }
            2 if block.has_savepoint() => {
                block.release();
                self.command("RELEASE here").await
            }
            3..7 => {
                let write = self.pick(family);
                if write.place == Place::Alone
                    || (write.is_loud() && !self.world.is_stormy())
                    || (block.is_repeatable() && !family.keeps_to_snapshots())
                {
                    return Ok(true);
                }
                self.write_in(block, &write).await
            }
            _ if !family.is_current_in_blocks() || (block.is_repeatable() && !family.keeps_to_snapshots()) => Ok(true),
            _ => self.read(family, Some(block)).await,
        }
    }

    /// Commits, or not.
    async fn end(&mut self, block: Block, is_healthy: bool) -> Result<(), Lost> {
        if !is_healthy || self.chance(5) {
            self.world.count("rollback");
            self.command("ROLLBACK").await?;
            return Ok(());
        }
        let mut commit = Request::new("COMMIT", Vec::new());
        // What is prepared holds its locks without a connection. On few connections those who wait for the locks may have them all,
        // and nobody is left to commit.
        let can_commit_later = self.world.settings.connections.is_none();
        if can_commit_later && self.chance(20) && self.world.is_stormy() {
            self.prepared += 1;
            // A number that is unique in the cluster, which other runs share.
            let name =
                u64::from(self.world.stage.proxy.port) * 1_000_000_000 + self.number * 10_000_000 + self.prepared;
            if !self.command(&format!("PREPARE TRANSACTION '{name}'")).await? {
                return Ok(());
            }
            commit.sql = format!("COMMIT PREPARED '{name}'");
        }
        let mut how = How::Simple;
        let mut vanish = VANISH_WRITING;
        match self.rng.random_range(0..6) {
            _ if commit.sql != "COMMIT" => {}
            // Others see what is committed long before this client is told.
            0 | 1 => commit.sql = "COMMIT; SELECT 1 FROM pg_sleep(0.01)".into(),
            // It is committed long after it was sent, when the client may have gone.
            2 => {
                commit.sql = "SELECT 1 FROM pg_sleep(0.03); COMMIT".into();
                vanish = 2;
            }
            3 | 4 => how = How::Unnamed { binary: false },
            _ => {}
        }
        let adds = block.adds();
        let began = self.world.now();
        self.world.register.sending(adds);
        let answer = self.ask(std::slice::from_ref(&commit), how, vanish).await;
        let cells = adds.keys().copied().collect();
        self.written = adds.keys().next().filter(|_| self.rng.random()).map(|cell| cell.family);
        let Ok(answer) = answer else {
            self.remember(began, format!("{} of {adds:?} -> nobody knows", commit.sql), cells);
            return Err(Lost);
        };
        let is_committed = answer.tags.iter().any(|tag| tag.starts_with("COMMIT"));
        self.remember(began, format!("{} of {adds:?} -> {:?} {:?}", commit.sql, answer.tags, answer.error), cells);
        self.world.register.told(adds, if is_committed { adds } else { const { &Adds::new() } });
        if let Some(error) = &answer.error {
            self.failed(error, &commit);
        }
        self.world.count(if commit.sql.starts_with("COMMIT PREPARED") { "commit prepared" } else { "commit" });
        Ok(())
    }

    /// A statement that neither reads nor writes.
    async fn command(&mut self, sql: &str) -> Result<Succeeded, Lost> {
        let request = Request::new(sql, Vec::new());
        let answer = self.ask(std::slice::from_ref(&request), How::Simple, VANISH_READING).await?;
        Ok(answer.error.is_none_or(|error| self.failed(&error, &request)))
    }
}
