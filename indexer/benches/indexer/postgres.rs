//! A PostgreSQL server of the benchmark's own.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

include!("../../tests/indexer/server.inc.rs");
