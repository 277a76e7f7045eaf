//! The agent in the confidential VM. It alone sees rows, and lets out only what the owners agreed to.
//!
//! It knows who it is from dstack's guest agent, what may run from the measured app-compose, and what counts from
//! the chain. It trusts neither the folder of sealed files, nor the analyst, nor a single RPC endpoint.

pub mod api;
pub mod chain;
pub mod compute;
pub mod fetch;
pub mod kms;
pub mod machine;
pub mod prove;
pub mod resume;
pub mod run;
pub mod store;
