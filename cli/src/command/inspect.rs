//! `cohort inspect`: the public card of a sealed file.

use std::path::PathBuf;

use clap::Args;

use crate::{
    config::Settings,
    failure::{Failure, Outcome},
    inspect,
};

/// Arguments of `cohort inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The sealed file.
    file: PathBuf,
}

/// Prints the card.
pub fn run(settings: &Settings, args: &InspectArgs) -> Outcome {
    let report = inspect::inspect_file(&args.file).map_err(Failure::from)?;
    if settings.json {
        println!("{}", serde_json::json!(report));
    } else {
        println!("{report}");
    }
    Ok(())
}
