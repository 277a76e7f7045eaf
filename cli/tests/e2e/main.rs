//! The system as its users and its enemies meet it: real processes, a real chain, real data, development roots.
//!
//! Each test starts a stack of its own under `target/e2e`. `make test` builds the programs and contracts first.

mod attack;
mod audit;
mod crash;
mod demo;
mod docs;
mod gpu;
mod kms;
mod logs;
mod mistakes;
mod operations;
mod owners;
mod proof;
mod proxy;
mod python;
mod rest;
mod reveal;
mod support;
mod verify;
