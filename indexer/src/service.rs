//! The running indexer: database, follower and HTTP server together.

use std::{future::Future, net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, sync::watch};

use crate::{
    api::{self, Api},
    config::{Config, MAX_CONFIRMATIONS},
    follow::{Follower, StopReason},
    rpc::RpcError,
    store::{Store, StoreError},
};

/// Why the indexer could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A value that cannot work.
    #[error("{flag}: {reason}")]
    BadConfig {
        /// The flag that sets it.
        flag: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The database cannot be opened.
    #[error("--database {path}: {source}")]
    Open {
        /// Its path.
        path: String,
        /// Why.
        source: StoreError,
    },
    /// An RPC endpoint cannot be used at all.
    #[error("--rpc-url: {0}")]
    Rpc(#[from] RpcError),
    /// The address cannot be listened on.
    #[error("--listen {address}: {source}; choose another address, or port 0 for any free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTP server failed.
    #[error("HTTP server: {0}")]
    Serve(std::io::Error),
    /// Following ended for good.
    #[error("stopped following: {0}")]
    Stopped(#[from] StopReason),
}

/// An indexer whose database is open and whose address is bound.
#[derive(Debug)]
pub struct Indexer {
    listener: TcpListener,
    address: SocketAddr,
    store: Store,
    follower: Follower,
    api: Api,
    stop: watch::Sender<()>,
}

impl Indexer {
    /// Opens the database and binds the address. The chain need not be reachable yet.
    pub async fn bind(config: &Config) -> Result<Self, RunError> {
        if config.rpc_urls.is_empty() {
            return Err(RunError::BadConfig { flag: "--rpc-url", reason: "give at least one".to_owned() });
        }
        if config.confirmations > MAX_CONFIRMATIONS {
            let reason = format!("{} is more than {MAX_CONFIRMATIONS}", config.confirmations);
            return Err(RunError::BadConfig { flag: "--confirmations", reason });
        }
        let store = Store::open(&config.database)
            .await
            .map_err(|source| RunError::Open { path: config.database.to_string(), source })?;
        let counters = Arc::default();
        let (follower, health) = Follower::new(config, store.clone(), &counters)?;
        let failed = |source| RunError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (stop, stopping) = watch::channel(());
        let api = Api {
            store: store.clone(),
            confirmations: config.confirmations,
            max_lag: config.max_lag,
            console_connect: config.console_connect.clone(),
            allow_origins: config.allow_origins.clone(),
            health,
            stopping,
            counters,
            streams: Api::stream_permits(),
            known_positions: Arc::default(),
        };
        Ok(Self { listener, address, store, follower, api, stop })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Follows and serves until `shutdown` resolves, or until following must stop.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self { listener, store, follower, api, stop, .. } = self;
        let mut stopped = api.stopping.clone();
        let server = axum::serve(listener, api::router(api)).with_graceful_shutdown(async move {
            // Nothing is ever sent: an error means that the sender is gone, which is the end.
            drop(stopped.changed().await);
        });
        let server = tokio::spawn(server.into_future());
        let result = tokio::select! {
            reason = follower.run() => Err(RunError::Stopped(reason)),
            () = shutdown => Ok(()),
        };
        drop(stop);
        // Open connections get a moment to finish; keep-alive ones would never.
        let ended = tokio::time::timeout(std::time::Duration::from_secs(2), server).await;
        store.close().await;
        match (result, ended) {
            (Ok(()), Ok(Ok(Err(error)))) => Err(RunError::Serve(error)),
            (result, _) => result,
        }
    }
}

/// Binds and runs an indexer until `shutdown` resolves.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    Indexer::bind(&config).await?.run(shutdown).await
}
