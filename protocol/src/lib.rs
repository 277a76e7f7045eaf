//! Formats and decisions of Cohort, without I/O, clock or randomness of their own where that can be passed in.
//!
//! Every identifier, hash, signature and file format that two parts share is defined here once; the
//! specifications are in `docs/spec/`. Services, the CLI and the agent wire these to the world.

pub mod abi;
pub mod chain;
pub mod chain_proof;
pub mod compose;
pub mod decision;
pub mod eip712;
pub mod hex_digits;
pub mod hpke;
pub mod ids;
pub mod json;
pub mod loss;
pub mod recipe;
pub mod release;
pub mod release_log;
pub mod revert;
pub mod root;
pub mod sealed;
pub mod sign_rpc;
pub mod storage;
pub mod terms;
pub mod text;
