//! One module a command; each parses its arguments to plain data, then opens, then acts.

pub mod audit;
pub mod completions;
pub mod dataset;
pub mod gpu;
pub mod inspect;
pub mod kms;
pub mod kms_log;
pub mod owner;
pub mod recipe;
pub mod reseal;
pub mod result;
pub mod run;
pub mod seal;
pub mod status;
pub mod terms;
pub mod verify;
