//! `cohort`: the words and files by which owners, analysts and auditors use the system.

#[macro_use]
mod terminal;

pub mod audit;
pub mod chain;
pub mod command;
pub mod config;
#[cfg(feature = "dev")]
pub mod dev;
pub mod examples;
pub mod failure;
pub mod files;
pub mod http;
pub mod inspect;
pub mod key;
pub mod new_file;
pub mod policy;
pub mod release_log;
pub mod report;
pub mod root;
pub mod seal;
pub mod verify;
