//! The key service: it hands a dataset's wrap key to an attested CVM, and to nobody else, exactly while the chain
//! allows it. Specifications: `docs/spec/release.md` and `docs/spec/kms-root.md`.
//!
//! A release request passes through types that only the step before can make: a consumed challenge
//! ([`challenge::UsedChallenge`]), a consistent request ([`question::Checked`]), an attested one
//! ([`question::Question`]), and the permission ([`decide::Release`]), which is all that the key code
//! ([`keys`]) takes. The decisions are pure; [`service`] wires them to chain, indexer, clock and disk.

pub mod chain;
pub mod challenge;
pub mod claims;
mod client;
pub mod collateral;
pub mod config;
pub mod decide;
pub mod denial;
#[cfg(test)]
mod fixture;
pub mod guest;
pub mod http;
pub mod indexer;
pub mod keys;
pub mod leases;
pub mod limits;
pub mod metrics;
pub mod onboard;
pub mod openapi;
pub mod own_evidence;
pub mod policy;
pub mod question;
mod queue;
pub mod release_log;
pub mod replicas;
pub mod roots;
pub mod server;
pub mod service;
pub mod sources;
pub mod views;
