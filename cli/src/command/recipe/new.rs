//! `cohort recipe new`: an app-compose file to start from, which passes lint.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cohort_protocol::{ids::OwnerId, recipe::Recipe};
use serde_json::{Value, json};

use crate::{
    failure::{Failure, Outcome},
    files,
};

/// What computes the numbers.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum EngineArg {
    /// Declared measures, whose sensitivity the platform proves.
    Declared,
    /// A Python script, whose numbers the platform bounds and gives noise.
    Python,
}

/// Arguments of `cohort recipe new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// What the study is called.
    #[arg(long)]
    title: String,
    /// An owner whose data takes part; repeat for each.
    #[arg(long = "owner", required = true)]
    owners: Vec<OwnerId>,
    /// Column that tells persons apart.
    #[arg(long, default_value = "id")]
    unit: String,
    /// A column as NAME:TYPE with type int64, float64, utf8 or bool; repeat for each.
    #[arg(long = "column", value_parser = column)]
    columns: Vec<(String, String)>,
    /// Declared measures or a script.
    #[arg(long, default_value = "declared")]
    engine: EngineArg,
    /// A script's file, for engine python.
    #[arg(long)]
    script: Option<PathBuf>,
    /// The agent's container image by digest: REPOSITORY@sha256:DIGEST.
    #[arg(long)]
    image: String,
    /// Where to write the app-compose file.
    #[arg(long)]
    out: PathBuf,
}

fn column(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, kind @ ("int64" | "float64" | "utf8" | "bool"))) => {
            Ok((name.to_owned(), kind.to_owned()))
        }
        _ => Err("give NAME:TYPE with type int64, float64, utf8 or bool".to_owned()),
    }
}

/// Writes the file.
pub fn make(args: &NewArgs) -> Outcome {
    files::refuse_existing(&args.out)?;
    let mut section = section(args)?;
    let refused = |e: &dyn std::error::Error| {
        Failure::input(
            format!("that makes no recipe: {}", files::chain_text(e)),
            "docs/spec/recipe.md has the rules",
        )
    };
    let recipe = Recipe::parse(&section).map_err(|e| refused(&e))?;
    section["output_schema"] = recipe.derived_output_schema();
    let compose = compose(args, section);
    let bytes = serde_json::to_vec(&compose).map_err(|e| refused(&e))?;
    let parsed = cohort_protocol::compose::AppCompose::parse(&bytes).map_err(|e| refused(&e))?;
    let findings: Vec<String> = parsed.lint().iter().map(ToString::to_string).collect();
    if !findings.is_empty() {
        return Err(Failure::input(findings.join("; "), "give the image as REPOSITORY@sha256:DIGEST"));
    }
    files::write_json(&args.out, &compose)?;
    println!("-> {}: add measures, then cohort recipe lint, cost and rehearse", args.out.display());
    Ok(())
}

fn section(args: &NewArgs) -> Outcome<Value> {
    let mut columns = vec![json!({ "name": args.unit, "type": "utf8", "nullable": false })];
    for (name, kind) in args.columns.iter().filter(|(name, _)| *name != args.unit) {
        let mut column = json!({ "name": name, "type": kind, "nullable": true });
        if kind == "float64" {
            column["decimals"] = json!(2);
        }
        columns.push(column);
    }
    let own = args.columns.iter().find(|(name, _)| *name == args.unit);
    if let Some(((_, kind), unit)) = own.zip(columns.first_mut()) {
        unit["type"] = json!(kind);
    }
    let count = |share: &str| json!({ "name": "persons", "kind": "count", "by": [], "round_to": "1", "epsilon": share });
    let mut section = json!({
        "version": 1,
        "title": args.title,
        "engine": "declared",
        "datasets": { "owners": args.owners, "columns": columns },
        "privacy": { "unit": args.unit, "epsilon_per_run": "1", "epsilon_budget": "3", "delta": "0" },
        "keys": [],
        "measures": [count("1")],
        "minimum_group_size": 10,
        "output_schema": { "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object" },
    });
    if let EngineArg::Python = args.engine {
        section["engine"] = json!("python");
        section["python"] = json!({ "script": script(args)?, "seconds": 120, "memory_mib": 4096 });
        section["measures"] = json!([count("0.5"), {
            "name": "result", "kind": "emitted", "by": [], "over": "persons", "lower": 0, "upper": 1,
            "round_to": "0.01", "epsilon": "0.5"
        }]);
    }
    Ok(section)
}

fn script(args: &NewArgs) -> Outcome<String> {
    match &args.script {
        Some(path) => std::fs::read_to_string(path).map_err(|e| Failure::read(path, &e)),
        None => Ok("from cohort import owners\n\
                    from phala.dstack import emit_signed, unwrap\n\n\
                    rows = sum(len(unwrap(owner)) for owner in owners())\n\
                    emit_signed({\"result\": min(1, rows / 1000)})\n"
            .to_owned()),
    }
}

fn compose(args: &NewArgs, section: Value) -> Value {
    let services = format!(
        "services:\n  agent:\n    image: {}\n    restart: \"no\"\n    read_only: true\n    cap_drop:\n      - ALL\n    \
         tmpfs:\n      - /tmp\n    volumes:\n      - /var/run/dstack.sock:/var/run/dstack.sock\n    ports:\n      \
         - \"8080:8080\"\n",
        args.image
    );
    let name: String =
        args.title.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    json!({
        "manifest_version": 2, "name": name, "runner": "docker-compose", "docker_compose_file": services,
        "kms_enabled": true, "gateway_enabled": true, "local_key_provider_enabled": false, "public_logs": false,
        "public_sysinfo": false, "public_tcbinfo": true, "allowed_envs": [], "no_instance_id": false,
        "secure_time": true, "cohort": section,
    })
}
