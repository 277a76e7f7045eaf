//! Prints the output schema that follows from the measures of the recipe in an app-compose file.
//!
//! For authors: put any schema of draft 2020-12 into `cohort.output_schema`, run this, and put its output there.

use std::{error::Error, io::Write as _};

use cohort_protocol::compose::AppCompose;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: output-schema APP-COMPOSE.json")?;
    let recipe = AppCompose::parse(&std::fs::read(path)?)?.recipe()?;
    let mut out = std::io::stdout();
    serde_json::to_writer_pretty(&mut out, &recipe.derived_output_schema())?;
    Ok(writeln!(out)?)
}
