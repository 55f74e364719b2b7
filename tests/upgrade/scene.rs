//! A proxy that another one can take over from.

use tempfile::TempDir;

use crate::harness::{Options, Proxy, Stage, wait_until};

pub struct Scene {
    pub stage: Stage,
    pub options: Options,
    pub dir: TempDir,
}

impl Scene {
    pub async fn new(options: Options, setup: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = options
            .key("server.takeover_dir", dir.path().display())
            .key("server.unix_socket_dir", dir.path().display())
            .key("upstream.connect_timeout_secs", 20);
        let stage = Stage::setup_with(options.clone(), setup).await;
        Self { stage, options, dir }
    }

    /// Connections are shared, as they are by default where the proxy authenticates.
    pub async fn shared(setup: &str) -> Self {
        Self::new(Options::default().key("auth.mode", "trust").key("auth.auth_query", ""), setup).await
    }

    /// A newer process takes over; the older one is returned. The stage has the newer one from now on.
    pub async fn upgrade(&mut self) -> Proxy {
        let new = self.start(&self.options).await;
        std::mem::replace(&mut self.stage.proxy, new)
    }

    /// Starts one more process with these options, until it accepts clients or has ended.
    pub async fn start(&self, options: &Options) -> Proxy {
        self.stage.proxy.successor(self.stage.cluster, &self.stage.database, options).await
    }

    pub fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join(format!(".s.PGSQL.{}", self.stage.proxy.port))
    }
}

/// Waits until the newer process uses its cache: the older one has ended.
pub async fn until_alone(proxy: &Proxy) {
    wait_until("the newer process is alone", async || proxy.log_text().contains("the cache is used from now on")).await;
}
