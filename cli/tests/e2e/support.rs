//! A stack with sealed, registered and approved data, in few words.

use std::path::{Path, PathBuf};

use cohort_cli::dev::{HOSPITALS, Options, Ran, Stack};
use cohort_protocol::terms::Terms;

/// The project's folder.
pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the project's folder is there")
}

/// Folder of the built programs.
pub(crate) fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_cohort")).parent().expect("programs lie in a folder").to_owned()
}

/// Contracts deployed, no service yet.
pub(crate) async fn deployed(name: &str) -> Stack {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let project = project();
    let folder = project.join("target/e2e").join(format!("{name}-{}", std::process::id()));
    let options = Options { project, folder, programs: programs() };
    Stack::deploy(options)
        .await
        .unwrap_or_else(|f| panic!("{} ({:?}); run `make build` first", f.message, f.hint))
}

/// Everything runs; nothing is sealed.
pub(crate) async fn started(name: &str) -> Stack {
    let mut stack = deployed(name).await;
    stack.start_services().await.unwrap_or_else(|f| panic!("{}", f.message));
    stack
}

/// Runs a command that must succeed.
pub(crate) async fn ok(stack: &Stack, args: &[&str]) -> Ran {
    let ran = stack.cohort(args).await.unwrap_or_else(|f| panic!("{}", f.message));
    assert!(ran.succeeded(), "cohort {}: {}{}", args.join(" "), ran.stdout, ran.stderr);
    ran
}

/// Runs a command that must fail with `code`, naming each of `words`, and giving a hint.
pub(crate) async fn fails(stack: &Stack, args: &[&str], code: i32, words: &[&str]) {
    let ran = stack.cohort(args).await.unwrap_or_else(|f| panic!("{}", f.message));
    let told = format!("cohort {}: {:?} {}{}", args.join(" "), ran.code, ran.stdout, ran.stderr);
    assert_eq!(ran.code, Some(code), "{told}");
    assert!(ran.stderr.contains("error: ") && ran.stderr.contains("hint: "), "{told}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is not in: {told}");
    }
}

/// Every hospital seals, registers and publishes its data.
pub(crate) async fn seal_all(stack: &Stack) {
    stack.split_data().await.unwrap_or_else(|f| panic!("{}", f.message));
    tokio::join!(seal(stack, 0), seal(stack, 1), seal(stack, 2), seal(stack, 3));
}

async fn seal(stack: &Stack, index: usize) {
    let owner = HOSPITALS[index].owner;
    ok(stack, &["seal", "--owner", owner, "--in", &format!("data/{owner}.parquet")]).await;
    let file = format!("sealed/{owner}.tar");
    let key = stack.owners[index].key();
    let region = HOSPITALS[index].region;
    ok(stack, &["dataset", "register", &file, "--region", region, "--kind", "EHR", "--key-file", &key]).await;
    std::fs::copy(stack.path(&file), stack.path(&format!("published/{owner}.tar")))
        .expect("it can be published");
}

/// Terms in `terms.json` for the development CVM's image alone, approved by the owners with these indexes.
pub(crate) async fn approve(stack: &Stack, owners: &[usize]) -> Terms {
    ok(stack, &["terms", "--system", &stack.mr_system.to_string(), "--out", "terms.json"]).await;
    for index in owners {
        let (owner, key) = (HOSPITALS[*index].owner, stack.owners[*index].key());
        ok(stack, &["approve", "--terms", "terms.json", "--owner", owner, "--key-file", &key, "--yes"]).await;
    }
    read(&stack.path("terms.json"))
}

/// A stack in which a run can be opened for anybody.
pub(crate) async fn ready(name: &str) -> (Stack, Terms) {
    let stack = started(name).await;
    seal_all(&stack).await;
    let terms = approve(&stack, &[0, 1, 2, 3]).await;
    (stack, terms)
}

/// `cohort run` for the approved terms, by the analyst with this key file.
pub(crate) fn run<'a>(key: &'a str, owners: &'a str, out: &'a str) -> [&'a str; 9] {
    ["run", "--terms", "terms.json", "--owners", owners, "--key-file", key, "--out", out]
}

/// Parses a JSON file.
pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The fenced `sh` blocks of a page, in order; those of a list without its indentation.
pub(crate) fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for line in page.lines() {
        let text = line.trim_start();
        match &mut block {
            None if text == "```sh" => block = Some((line.len() - text.len(), String::new())),
            None => (),
            Some(_) if text == "```" => blocks.extend(block.take().map(|(_, block)| block)),
            Some((indent, block)) => {
                *block += line.get(*indent..).unwrap_or(text);
                block.push('\n');
            }
        }
    }
    blocks
}
