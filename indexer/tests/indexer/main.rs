//! The indexer through its public interface, against a chain that the tests make up, and against anvil.

mod anvil;
mod api;
mod binary;
mod chain;
mod cohort;
mod contracts;
mod decision;
mod follow;
mod history;
mod openapi;
mod postgres;
mod proxy;
mod running;
mod stream;
mod study;
