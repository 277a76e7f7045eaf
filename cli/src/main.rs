//! `cohort`: parses the command line, runs one command, maps failures to exit codes.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use cohort_cli::{
    command::{
        audit, completions, dataset, gpu, inspect, kms, owner, recipe, reseal, result, run, seal, status,
        terms, verify,
    },
    config::{Global, Settings},
    examples,
    failure::Outcome,
};

/// Compute travels, data stays: seal, approve, run and verify studies whose rows nobody shares.
#[derive(Parser)]
#[command(name = "cohort", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Encrypt a dataset at its source, for exactly one recipe.
    Seal(seal::SealArgs),
    /// Seal a sealed file for another recipe, by its recovery file and without its plaintext.
    Reseal(reseal::ResealArgs),
    /// Show the public card of a sealed file.
    Inspect(inspect::InspectArgs),
    /// Register sealed datasets on chain.
    #[command(subcommand)]
    Dataset(dataset::DatasetCommand),
    /// Explain, hash or lint a recipe.
    #[command(subcommand)]
    Recipe(recipe::RecipeCommand),
    /// Make the terms that owners are asked to approve.
    Terms(terms::TermsArgs),
    /// Approve terms as an owner: by transaction, or by a signature that somebody else relays.
    Approve(owner::ApproveArgs),
    /// Submit owners' signatures.
    Relay(owner::RelayArgs),
    /// Record that an owner will not approve, with a reason.
    Reject(owner::RejectArgs),
    /// Stop a proposal, or all, for good: one owner, one transaction.
    Revoke(owner::RevokeArgs),
    /// Show a proposal: who signed, who is awaited, what is left.
    Status(status::StatusArgs),
    /// Ask for a run as an analyst and fetch its result.
    Run(run::RunArgs),
    /// Check a result file: evidence, signatures, approvals, budget, receipt.
    Verify(verify::VerifyArgs),
    /// Work on a result file: put the chain's proofs into it.
    #[command(subcommand)]
    Result(result::ResultCommand),
    /// Re-check a consortium's whole history from the chain alone.
    Audit(audit::AuditArgs),
    /// Check the KMS against the chain and its own quote, and remember it.
    #[command(subcommand)]
    Kms(kms::KmsCommand),
    /// Golden values of GPUs, and their evidence checked by hand.
    #[command(subcommand)]
    Gpu(gpu::GpuCommand),
    /// Print the completion script of a shell.
    Completions(completions::CompletionsArgs),
    /// Write the manual pages.
    Man(completions::ManArgs),
    /// Development: a whole study on this machine, with real checks under development roots.
    #[cfg(feature = "dev")]
    #[command(subcommand)]
    Dev(cohort_cli::dev::DevCommand),
}

#[tokio::main]
async fn main() -> ExitCode {
    quiet_on_closed_pipe();
    let _ = rustls::crypto::ring::default_provider().install_default();
    cohort_recognise::silence_decoder();
    let cli = Cli::from_arg_matches(&command_line().get_matches()).unwrap_or_else(|error| error.exit());
    match dispatch(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// With examples for each command.
fn command_line() -> clap::Command {
    examples::add(Cli::command())
}

/// `cohort ... | head`: println! panics once the reader has gone; that is an end, not a fault.
fn quiet_on_closed_pipe() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>().map_or("", String::as_str);
        if text.starts_with("failed printing to stdout") {
            std::process::exit(0);
        }
        report(info);
    }));
}

async fn dispatch(cli: Cli) -> Outcome {
    let settings = Settings::load(cli.global)?;
    match cli.command {
        Command::Completions(args) => completions::completions(command_line(), &args),
        Command::Man(args) => completions::man(command_line(), &args),
        Command::Seal(args) => seal::run(&settings, args).await,
        Command::Reseal(args) => reseal::run(&settings, args).await,
        Command::Inspect(args) => inspect::run(&settings, &args),
        Command::Dataset(command) => dataset::run(&settings, &command).await,
        Command::Recipe(command) => recipe::run(&settings, &command),
        Command::Terms(args) => terms::make(&settings, &args).await,
        Command::Approve(args) => owner::approve(&settings, &args).await,
        Command::Relay(args) => owner::relay(&settings, &args).await,
        Command::Reject(args) => owner::reject(&settings, &args).await,
        Command::Revoke(args) => owner::revoke(&settings, &args).await,
        Command::Status(args) => status::run(&settings, &args).await,
        Command::Run(args) => run::run(&settings, &args).await,
        Command::Verify(args) => verify::run(&settings, &args).await,
        Command::Result(command) => result::run(&settings, &command).await,
        Command::Audit(args) => audit::run(&settings, &args).await,
        Command::Kms(command) => kms::run(&settings, command).await,
        Command::Gpu(command) => gpu::run(&settings, &command),
        #[cfg(feature = "dev")]
        Command::Dev(command) => cohort_cli::dev::run(&command).await,
    }
}
