//! The indexer: mirrors one chain's `DstackKms` and every `DstackApp` registered in it, from events alone, into
//! SQLite, and answers questions about them over HTTP (`docs/spec/indexer-api.md`).
//!
//! It decides nothing: the chain does, and whoever acts on an answer checks it there. A hostile or stale indexer can
//! at worst deny service.

pub mod api;
pub mod config;
pub mod decision;
pub mod dump;
pub mod event;
pub mod follow;
pub mod metrics;
pub mod rpc;
pub mod schema;
mod service;
mod size;
pub mod store;
pub mod value;
pub mod view;

pub use self::{
    config::Config,
    service::{Indexer, RunError, run},
};
