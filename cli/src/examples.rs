//! What `--help` of each command ends with: lines to copy. A test runs the parser on each, and lets no command be without.

use clap::Command;

/// Command, and lines of a shell. What differs from study to study is a variable.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "",
        &[
            r#"cohort recipe explain --compose app-compose.json"#,
            r#"cohort verify result.json --app "$APP" --rpc-url "$RPC""#,
            r#"cohort revoke --all --app "$APP" --rpc-url "$RPC" --key-file hospital-A.key"#,
        ],
    ),
    (
        "seal",
        &[
            "cohort seal --owner hospital-A --in cohort-A.parquet",
            "cohort seal --owner hospital-A --in - --out cohort-A.tar < cohort-A.parquet",
        ],
    ),
    (
        "reseal",
        &[
            "cohort reseal sealed/cohort-A.tar --recovery-file cohort-A.recovery --compose next-app-compose.json",
        ],
    ),
    ("inspect", &["cohort inspect sealed/cohort-A.tar"]),
    (
        "dataset register",
        &[
            "cohort dataset register sealed/cohort-A.tar --region EU-West --kind EHR --key-file hospital-A.key",
        ],
    ),
    (
        "recipe new",
        &[
            r#"cohort recipe new --title "Visits by age" --owner hospital-A --owner hospital-B --image "$IMAGE" --out app-compose.json"#,
        ],
    ),
    ("recipe explain", &["cohort recipe explain --compose app-compose.json --lang tr"]),
    ("recipe hash", &["cohort recipe hash --compose app-compose.json"]),
    ("recipe lint", &["cohort recipe lint --compose app-compose.json"]),
    ("recipe cost", &["cohort recipe cost --compose app-compose.json"]),
    ("recipe rehearse", &["cohort recipe rehearse --rows 1000 --key-file analyst.key --out study.rehearsal"]),
    ("recipe check-rehearsal", &["cohort recipe check-rehearsal study.rehearsal --compose app-compose.json"]),
    ("terms", &[r#"cohort terms --system "$MR_SYSTEM" --days 30 --out terms.json"#]),
    (
        "approve",
        &[
            "cohort approve --terms terms.json --owner hospital-A --keystore hospital-A.json",
            "cohort approve --terms terms.json --owner hospital-A --key-file hospital-A.key --sign-only --out a.json",
        ],
    ),
    ("relay", &["cohort relay a.json b.json --key-file relayer.key"]),
    (
        "reject",
        &[r#"cohort reject --proposal "$PROPOSAL" --reason "too small groups" --key-file hospital-D.key"#],
    ),
    (
        "revoke",
        &[
            r#"cohort revoke --proposal "$PROPOSAL" --key-file hospital-D.key"#,
            "cohort revoke --all --owner hospital-D --revocation-key --key-file revocation.key --sign-only --out stop.json",
        ],
    ),
    ("status", &[r#"cohort status --proposal "$PROPOSAL""#]),
    (
        "run",
        &[
            "cohort run --terms terms.json --owners hospital-A,hospital-B --key-file analyst.key --preflight",
            "cohort run --terms terms.json --owners hospital-A,hospital-B --key-file analyst.key --out result.json",
        ],
    ),
    (
        "verify",
        &[
            r#"cohort verify result.json --app "$APP" --rpc-url "$RPC,$OTHER_RPC""#,
            r#"cohort verify result.json --offline --app "$APP" --block-hash "$BLOCK_HASH" --code-hash "$CODE_HASH""#,
        ],
    ),
    (
        "result attach-proofs",
        &[
            r#"cohort result attach-proofs result.json --rpc-url "$RPC" --registry "$REGISTRY" --out proved.json"#,
        ],
    ),
    (
        "audit",
        &[
            r#"cohort audit --app "$APP" --rpc-url "$RPC,$OTHER_RPC" --kms-log release-log.jsonl --html audit.html"#,
        ],
    ),
    ("kms verify", &[r#"cohort kms verify --kms-url "$KMS" --rpc-url "$RPC" --out root.json"#]),
    (
        "kms log verify",
        &[
            r#"cohort kms log verify --url "$KMS" --app "$APP" --rpc-url "$RPC" --save-head head.json"#,
            "cohort kms log verify release-log.jsonl --head head.json --offline",
        ],
    ),
    (
        "gpu rim import",
        &[
            r#"cohort gpu rim import driver.swidtag vbios.swidtag --chain-id 1 --keystore registry-owner.json --out golden.json"#,
        ],
    ),
    ("gpu verify", &[r#"cohort gpu verify evidence.json --nonce "$NONCE""#]),
    ("completions", &["cohort completions bash > cohort.bash"]),
    ("man", &["cohort man --out man"]),
];

/// The command line, each command with its examples.
pub fn add(command: Command) -> Command {
    below(command, "")
}

fn below(mut command: Command, path: &str) -> Command {
    if let Some((_, lines)) = EXAMPLES.iter().find(|(name, _)| *name == path) {
        command = command.after_help(format!("Examples:\n  {}", lines.join("\n  ")));
    }
    let names: Vec<_> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        let path = format!("{path} {name}");
        command = command.mut_subcommand(&name, |sub| below(sub, path.trim_start()));
    }
    command
}
