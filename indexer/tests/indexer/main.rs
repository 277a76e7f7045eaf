//! The indexer through its public interface, against a chain that the tests make up, and against anvil.

mod anvil;
mod api;
mod binary;
mod chain;
mod cohort;
mod decision;
mod follow;
mod openapi;
mod postgres;
mod running;
mod stream;
mod study;
