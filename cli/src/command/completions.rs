//! `cohort completions` and `cohort man`: both are made from the command line's own definition.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use clap_complete::Shell;

use crate::failure::{Failure, Outcome};

/// Arguments of `cohort completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell.
    shell: Shell,
}

/// Arguments of `cohort man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Folder for cohort.1 and one page a command; it is made if it is missing. Existing pages are replaced.
    #[arg(long)]
    out: PathBuf,
}

/// Prints the completion script.
pub fn completions(mut command: clap::Command, args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "cohort", &mut script);
    io::stdout().write_all(&script).map_err(|e| Failure::write(Path::new("-"), &e))
}

/// Writes the manual pages.
pub fn man(command: clap::Command, args: &ManArgs) -> Outcome {
    fs::create_dir_all(&args.out)
        .and_then(|()| clap_mangen::generate_to(command, &args.out))
        .map_err(|e| Failure::write(&args.out, &e))?;
    println!(
        "manual pages are in {}; try man -l {}",
        args.out.display(),
        args.out.join("cohort.1").display()
    );
    Ok(())
}
