//! A client as most applications have one: tokio-postgres, with helpers that fail the test with a clear message.

use std::error::Error;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{AsyncMessage, Config, NoTls, SimpleQueryMessage};

use super::{DEADLINE, within};

/// Rows in text format; a NULL is `None`.
pub type TextRows = Vec<Vec<Option<String>>>;
/// Rows in binary format, each value as it came.
pub type BinaryRows = Vec<Vec<Option<Vec<u8>>>>;

pub struct Client {
    inner: tokio_postgres::Client,
    notifications: Arc<Mutex<Vec<(i32, String, String)>>>,
}

impl Deref for Client {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl Client {
    pub async fn connect(port: u16, user: &str, database: &str) -> Self {
        match Self::try_connect(Config::new().host("127.0.0.1").port(port).user(user).dbname(database)).await {
            Ok(client) => client,
            Err(error) => {
                panic!("cannot connect to port {port}, database {database}, user {user}: {}", explain(&error))
            }
        }
    }

    pub async fn try_connect(config: &Config) -> Result<Self, tokio_postgres::Error> {
        let (inner, mut connection) = within("connecting", config.connect(NoTls)).await?;
        let notifications = Arc::new(Mutex::new(Vec::new()));
        let seen = notifications.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    let notification = (
                        notification.process_id(),
                        notification.channel().to_string(),
                        notification.payload().to_string(),
                    );
                    seen.lock().unwrap().push(notification);
                }
            }
        });
        Ok(Self { inner, notifications })
    }

    /// Runs statements as one simple query.
    pub async fn run(&self, sql: &str) {
        if let Err(error) = within(sql, self.inner.batch_execute(sql)).await {
            panic!("{}\nof {sql}", explain(&error));
        }
    }

    /// The SQLSTATE with which these statements fail.
    pub async fn fails(&self, sql: &str) -> String {
        match within(sql, self.inner.batch_execute(sql)).await {
            Ok(()) => panic!("this should have failed: {sql}"),
            Err(error) => error.code().map_or_else(|| explain(&error), |code| code.code().to_string()),
        }
    }

    /// The rows of a simple query (of all its statements), in text format.
    pub async fn text(&self, sql: &str) -> TextRows {
        let messages = match within(sql, self.inner.simple_query(sql)).await {
            Ok(messages) => messages,
            Err(error) => panic!("{}\nof {sql}", explain(&error)),
        };
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_string)).collect()),
            _ => None,
        });
        rows.collect()
    }

    /// The only value of a simple query.
    pub async fn one(&self, sql: &str) -> String {
        let rows = self.text(sql).await;
        assert!(rows.len() == 1 && rows[0].len() == 1, "one value expected of {sql}: {rows:?}");
        rows[0][0].clone().unwrap_or_else(|| panic!("NULL is the answer of {sql}"))
    }

    /// The rows of a statement that is prepared, described, then bound and executed in another batch.
    pub async fn binary(&self, sql: &str) -> BinaryRows {
        match within(sql, self.inner.query(sql, &[])).await {
            Ok(rows) => rows.iter().map(values).collect(),
            Err(error) => panic!("{}\nof {sql}", explain(&error)),
        }
    }

    /// The rows of a statement that is parsed, bound, described and executed in one batch, unnamed.
    pub async fn one_batch(&self, sql: &str) -> BinaryRows {
        match within(sql, self.inner.query_typed(sql, &[])).await {
            Ok(rows) => rows.iter().map(values).collect(),
            Err(error) => panic!("{}\nof {sql}", explain(&error)),
        }
    }

    /// The backend that serves this client's transactions now.
    pub async fn backend_pid(&self) -> i32 {
        self.one("SELECT pg_backend_pid()").await.parse().expect("a number")
    }

    /// Notifications received so far: pid, channel, payload.
    pub fn notifications(&self) -> Vec<(i32, String, String)> {
        self.notifications.lock().unwrap().clone()
    }

    /// Waits until the number that `sql` answers (on this client) is not zero.
    pub async fn until(&self, what: &str, sql: &str) {
        let start = std::time::Instant::now();
        while matches!(self.one(sql).await.as_str(), "0" | "f") {
            assert!(start.elapsed() < DEADLINE, "this did not happen within {DEADLINE:?}: {what}: {sql}");
            tokio::time::sleep(std::time::Duration::from_millis(4)).await;
        }
    }

    /// Waits until a statement that matches `pattern` waits for a lock in this client's database.
    pub async fn until_blocked(&self, pattern: &str) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
             AND pid <> pg_backend_pid() AND query LIKE '{pattern}'"
        );
        self.until("a statement waits for a lock", &sql).await;
    }
}

fn values(row: &tokio_postgres::Row) -> Vec<Option<Vec<u8>>> {
    (0..row.len()).map(|at| row.get::<_, Option<Bytes>>(at).map(|value| value.0)).collect()
}

/// A value of any type, undecoded.
struct Bytes(Vec<u8>);

impl<'a> FromSql<'a> for Bytes {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The server's own words, where there are any.
pub fn explain(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} {}: {}", error.severity(), error.code().code(), error.message()),
        None => error.to_string(),
    }
}
