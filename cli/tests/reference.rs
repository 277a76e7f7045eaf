//! docs/cli-reference.md is what `--help` says, for every command of a production build.
//!
//! `COHORT_UPDATE=1 cargo test -p cohort-cli --test reference` writes it anew.

use std::{fmt::Write as _, path::Path, process::Command};

const HEAD: &str =
    "# `cohort`: every command\n\nGenerated from `--help`; `docs/cli.md` is the introduction.\n";

/// What `cohort ARGS --help` prints, whatever the environment of the test says.
fn help(args: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_cohort");
    let output = Command::new(program).args(args).arg("--help").env_clear().output().expect("cohort starts");
    assert!(output.status.success(), "cohort {args:?} --help");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    without_development(&text)
}

/// Options that exist in development builds only: an option begins at a line with its dashes.
fn without_development(text: &str) -> String {
    let mut kept = String::new();
    let mut dropping = false;
    for line in text.lines() {
        let begins = line.trim_start().starts_with('-') && line.starts_with("  ");
        if begins {
            dropping = line.contains("--insecure-dev");
        }
        // The next group.
        dropping &= !line.ends_with(':') || line.starts_with(' ');
        if !dropping {
            let _ = writeln!(kept, "{}", line.trim_end());
        }
    }
    kept
}

/// The commands that a help text lists, without `help` and the development command.
fn commands(help: &str) -> Vec<String> {
    let list = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let lines = list.lines().take_while(|line| !line.trim().is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("    "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| !["help", "dev"].contains(name)).map(str::to_owned).collect()
}

fn section(path: &[&str], out: &mut String) {
    let text = help(path);
    if path.is_empty() {
        let kept: Vec<_> = text.lines().filter(|line| !line.starts_with("  dev ")).collect();
        let _ = write!(out, "\n```text\n{}\n```\n", kept.join("\n").trim_end());
    } else {
        let _ = write!(out, "\n## `cohort {}`\n\n```text\n{}\n```\n", path.join(" "), text.trim_end());
    }
    for command in commands(&text) {
        section(&[path, &[command.as_str()]].concat(), out);
    }
}

/// Paths of all commands that do something.
fn leaves(path: &[&str], out: &mut Vec<(Vec<String>, String)>) {
    let text = help(path);
    let below = commands(&text);
    if below.is_empty() || path.is_empty() {
        out.push((path.iter().map(|name| (*name).to_owned()).collect(), text));
    }
    for command in below {
        leaves(&[path, &[command.as_str()]].concat(), out);
    }
}

/// Each is taken by the parser as it stands; what it fails for then is that nothing of it is there.
#[test]
fn every_command_has_examples_that_parse() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_cohort"));
    let path = format!("{}:/usr/bin:/bin", program.parent().expect("a folder").display());
    let (address, hash) = (format!("0x{}", "11".repeat(20)), format!("0x{}", "11".repeat(32)));
    let mut commands = Vec::new();
    leaves(&[], &mut commands);
    assert!(commands.len() > 25, "{}", commands.len());
    std::fs::write(folder.path().join("cohort-A.parquet"), "no rows").expect("written");
    for (command, text) in commands {
        let (_, examples) =
            text.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{command:?} has none"));
        for line in examples.lines().filter(|line| !line.trim().is_empty()) {
            assert!(line.starts_with(&format!("  cohort {}", command.join(" "))), "{line}");
            let output = Command::new("sh")
                .args(["-c", line])
                .current_dir(folder.path())
                .env_clear()
                .env("PATH", &path)
                .envs([("RPC", "http://127.0.0.1:1"), ("OTHER_RPC", "http://127.0.0.1:1")])
                .envs([("KMS", "http://127.0.0.1:1"), ("IMAGE", "agent@sha256:0"), ("NONCE", &hash[2..])])
                .envs([("APP", &address), ("REGISTRY", &address), ("PROPOSAL", &hash)])
                .envs([("MR_SYSTEM", &hash), ("BLOCK_HASH", &hash), ("CODE_HASH", &hash)])
                .stdin(std::process::Stdio::null())
                .output()
                .expect("sh is there");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!said.contains("Usage:") && !said.contains("try '--help'"), "{line}: {said}");
            assert!(output.status.code() != Some(101), "{line}: {said}");
        }
    }
}

#[test]
fn the_reference_is_what_help_says() {
    let mut text = HEAD.to_owned();
    section(&[], &mut text);
    assert!(text.contains("## `cohort seal`") && text.contains("## `cohort kms verify`"), "{text}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli-reference.md");
    if std::env::var_os("COHORT_UPDATE").is_some() {
        std::fs::write(&path, &text).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/cli-reference.md is out of date: COHORT_UPDATE=1 cargo test -p cohort-cli --test reference"
    );
}
