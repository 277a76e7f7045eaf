//! What the indexer follows and serves, as one value.

use std::{net::SocketAddr, time::Duration};

use alloy::primitives::Address;

use crate::store::Database;

/// Blocks between the head and the confirmed position, unless configured.
pub const DEFAULT_CONFIRMATIONS: u64 = 2;
/// Largest configurable number of confirmations: every header up to there is kept.
pub const MAX_CONFIRMATIONS: u64 = 128;
/// Time between two looks at the chain's head, unless configured.
pub const DEFAULT_POLL: Duration = Duration::from_millis(300);
/// How long the mirror may be behind the chain and still answer release decisions, unless configured.
pub const DEFAULT_MAX_LAG: Duration = Duration::from_secs(15);
/// Headers kept without a gap below the head.
pub const HEADER_WINDOW: u64 = 256;

/// The indexer's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// JSON-RPC endpoints of one chain, in order of preference; at least one.
    pub rpc_urls: Vec<reqwest::Url>,
    /// WebSocket endpoints that announce new heads; none: only polling notices them.
    pub ws_urls: Vec<reqwest::Url>,
    /// The chain that they must be of; `None`: the first answer is taken, and must not change afterwards.
    pub chain_id: Option<u64>,
    /// The `DstackKms` to follow.
    pub registry: Address,
    /// Where the mirror is kept: a file is created if missing, a server's database must exist.
    pub database: Database,
    /// Address to serve HTTP on; port 0: any free one.
    pub listen: SocketAddr,
    /// Further origins that the console's pages may connect to.
    pub console_connect: Vec<String>,
    /// Origins whose pages may read the answers; `*`: any.
    pub allow_origins: Vec<String>,
    /// Blocks between head and confirmed position, at most [`MAX_CONFIRMATIONS`].
    pub confirmations: u64,
    /// No contract of interest was created below this block.
    pub from_block: u64,
    /// Time between two looks at the chain's head.
    pub poll: Duration,
    /// How long the mirror may be behind the chain and still be ready.
    pub max_lag: Duration,
    /// Believe what endpoints tell of blocks and logs, for chains that do not encode them as Ethereum does.
    pub insecure_unproved: bool,
}
