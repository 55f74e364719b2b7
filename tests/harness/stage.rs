//! A fresh database with a proxy in front of it.

use tokio_postgres::Config;

use super::client::TextRows;
use super::{Client, Cluster, DEADLINE, Options, Proxy, Raw, cluster};

pub struct Stage {
    pub database: String,
    pub proxy: Proxy,
    pub cluster: &'static Cluster,
}

impl Stage {
    /// With the default configuration.
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    /// With the default configuration, on a database that `setup` has been run in.
    pub async fn setup(setup: &str) -> Self {
        Self::setup_with(Options::default(), setup).await
    }

    /// The same with other options.
    pub async fn setup_with(options: Options, setup: &str) -> Self {
        let stage = Self::with(options).await;
        stage.direct().await.run(setup).await;
        stage
    }

    pub async fn with(options: Options) -> Self {
        Self::on(cluster(), options).await
    }

    pub async fn on(cluster: &'static Cluster, options: Options) -> Self {
        let database = cluster.database().await;
        let proxy = Proxy::start(cluster, &database, &options).await;
        Self { database, proxy, cluster }
    }

    /// The superuser, through the proxy.
    pub async fn client(&self) -> Client {
        self.client_as("postgres").await
    }

    pub async fn client_as(&self, user: &str) -> Client {
        Client::connect(self.proxy.port, user, &self.database).await
    }

    /// The superuser, straight at the server.
    pub async fn direct(&self) -> Client {
        self.direct_as("postgres").await
    }

    pub async fn direct_as(&self, user: &str) -> Client {
        Client::connect(self.cluster.port, user, &self.database).await
    }

    /// A driver's configuration that leads through the proxy.
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.proxy.port).user("postgres").dbname(&self.database);
        config
    }

    /// A raw connection through the proxy, ready for queries.
    pub async fn raw(&self) -> Raw {
        Raw::ready(self.proxy.port, "postgres", &self.database).await
    }

    /// A raw connection straight to the server, ready for queries.
    pub async fn raw_direct(&self) -> Raw {
        Raw::ready(self.cluster.port, "postgres", &self.database).await
    }

    /// Repeats a simple query until its answer comes from the cache, which the proxy may need a few runs for, and returns that
    /// answer. Fails if none does.
    pub async fn cached(&self, client: &Client, sql: &str) -> TextRows {
        self.until_hit(sql, || client.text(sql)).await
    }

    /// Repeats `read` until the counter of hits says that it was answered from the cache.
    pub async fn until_hit<T>(&self, what: &str, mut read: impl AsyncFnMut() -> T) -> T {
        let start = std::time::Instant::now();
        let mut runs = 0;
        loop {
            let before = self.proxy.hits().await;
            let answer = read().await;
            runs += 1;
            if self.proxy.hits().await > before {
                return answer;
            }
            if start.elapsed() > DEADLINE / 4 {
                let counters = self.proxy.cache_counters().await;
                panic!("never answered from the cache in {runs} runs: {what}\n{counters}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// Asserts that `read` is not answered from the cache now.
    pub async fn misses<T>(&self, what: &str, read: impl AsyncFnOnce() -> T) -> T {
        let before = self.proxy.hits().await;
        let answer = read().await;
        assert_eq!(self.proxy.hits().await, before, "answered from the cache: {what}");
        answer
    }
}
