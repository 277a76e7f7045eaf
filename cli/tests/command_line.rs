//! The `cohort` program: what it prints without a chain, and its exit codes.

use std::{
    fs,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use cohort_protocol::{
    hpke::SecretBytes,
    root::RootKeys,
    sealed::{self, wrap_key_from_root},
};

fn cohort(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cohort"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn completions_know_every_command_of_the_data_owner() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = cohort(folder.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = text(&output.stdout);
        for word in ["seal", "reseal", "inspect", "recovery-file", "no-metadata"] {
            assert!(script.contains(word), "{word} for {shell}");
        }
    }
    assert_eq!(cohort(folder.path(), &["completions", "none"]).status.code(), Some(2));
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let output = cohort(folder.path(), &["man", "--out", "man"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for page in
        ["cohort.1", "cohort-seal.1", "cohort-reseal.1", "cohort-inspect.1", "cohort-dataset-register.1"]
    {
        let page = fs::read_to_string(folder.path().join("man").join(page)).expect(page);
        assert!(page.contains(".SH NAME") && page.contains("SYNOPSIS"));
    }
}

#[test]
fn unusable_arguments_end_with_2_and_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.csv"), "a,b\n1,2\n").unwrap();
    for (args, words) in [
        (&["seal"][..], "--owner"),
        (&["seal", "--owner", "hospital A", "--in", "a.csv"], "--owner"),
        (&["seal", "--owner", "hospital-A", "--in", "a.csv"], "no app-compose file is given"),
        (&["inspect", "absent.tar"], "cannot read absent.tar"),
        (&["reseal", "absent.tar", "--recovery-file", "k"], "cannot read absent.tar"),
    ] {
        let output = cohort(folder.path(), args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(output.stdout.is_empty());
    }
    let output = cohort(folder.path(), &["inspect", "a.csv"]);
    assert_eq!(output.status.code(), Some(1), "a refusal is no bad argument");
}

/// Every reader of a stranger's file; what it prints is no more than it says it is.
#[test]
fn text_from_a_file_cannot_act_on_the_terminal() {
    const HOSTILE: &str = "\u{1b}[2J\nok: intact\r\u{9b}31m\u{202e}\u{2028}";
    let folder = tempfile::tempdir().unwrap();
    let json = |value: serde_json::Value| value.to_string().into_bytes();
    let compose = |cohort: serde_json::Value| {
        json(serde_json::json!({
            "manifest_version": 2, "name": HOSTILE, "runner": "docker-compose",
            "docker_compose_file": format!("services:\n  a:\n    image: \"{HOSTILE}\"\n"), "cohort": cohort,
        }))
    };
    let vector = |name: &str| {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../test/vectors/sealed-dataset").join(name))
            .unwrap()
    };
    let files = [
        ("member.json", json(serde_json::json!({ HOSTILE: 1 }))),
        ("text.json", json(serde_json::json!(HOSTILE))),
        ("long.json", json(serde_json::json!({ "k".repeat(900_000): 1 }))),
        ("twice.json", format!("{{{0}:1,{0}:1}}", serde_json::json!(HOSTILE)).into_bytes()),
        ("recipe.json", compose(serde_json::json!({ HOSTILE: HOSTILE }))),
        ("version.json", compose(serde_json::json!({ "version": HOSTILE }))),
        ("kind.tar", vector("envelope-kind-terminal.tar")),
        ("column.tar", vector("envelope-column-control.tar")),
        ("marks.tar", vector("valid-bytes-with-schema.tar")),
        ("texts.tar", vector("valid-longest-texts.tar")),
        ("lines.jsonl", format!("{}\n", serde_json::json!({ HOSTILE: HOSTILE })).into_bytes()),
    ];
    let commands: [&[&str]; 10] = [
        &["inspect"],
        &["inspect", "--json"],
        &["recipe", "explain"],
        &["recipe", "hash"],
        &["recipe", "lint"],
        &["recipe", "cost"],
        &["verify"],
        &["kms", "log", "verify"],
        &["gpu", "verify"],
        &["reseal", "--recovery-file", "absent", "--compose"],
    ];
    for (name, bytes) in &files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    std::thread::scope(|scope| {
        for command in commands {
            let (files, folder) = (&files, folder.path());
            scope.spawn(move || {
                for (name, _) in files {
                    let args = [command, &[*name]].concat();
                    let output = cohort(folder, &args);
                    let said = [text(&output.stdout), text(&output.stderr)].concat();
                    let acts =
                        |c: char| c.is_control() && c != '\n' || "\u{202e}\u{2028}\u{feff}".contains(c);
                    assert!(!said.chars().any(acts), "{args:?}: {said:?}");
                    assert!(!said.contains("\nok: intact"), "{args:?}: {said}");
                    assert!(said.len() < 20_000, "{args:?}: {} bytes", said.len());
                    assert_ne!(output.status.code(), Some(101), "{args:?}: {said}");
                }
            });
        }
    });
}

/// An owner's folder without a network: a saved root, the recipe, and data.
struct Site {
    folder: tempfile::TempDir,
}

const APP: &str = "0x4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f4f";
const REGISTRY: &str = "0x5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f5f";
const DATA: &[u8] = b"age,sex\n63,m\n41,f\n";

fn root() -> RootKeys {
    RootKeys::derive(&SecretBytes::new([7; 32]), 0).unwrap()
}

/// A file of `cohort kms verify --out`.
fn record(statement: &serde_json::Value) -> String {
    serde_json::json!({
        "format": "cohort-verified-root/1",
        "statement": statement,
        "app": APP,
        "platform": "none",
        "verified_at": 1_790_000_000,
    })
    .to_string()
}

impl Site {
    fn new() -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        let compose =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../test/data/heart-disease/app-compose.json");
        let compose = fs::read_to_string(compose).unwrap();
        site.write("app-compose.json", compose.as_bytes());
        let mut other: serde_json::Value = serde_json::from_str(&compose).unwrap();
        other["name"] = "second-study".into();
        site.write("second.json", other.to_string().as_bytes());
        let statement = root().statement(31337, REGISTRY.parse().unwrap()).unwrap();
        site.write("root.json", record(&serde_json::to_value(statement).unwrap()).as_bytes());
        site.write(
            "cohort.toml",
            format!("app = \"{APP}\"\nregistry = \"{REGISTRY}\"\ncompose = \"app-compose.json\"\n")
                .as_bytes(),
        );
        site.write("a.csv", DATA);
        site
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn offline<'a>(&self, args: &[&'a str]) -> Vec<&'a str> {
        let tail = ["--offline", "--root-file", "root.json"];
        args.iter().copied().chain(tail).collect()
    }

    fn run(&self, args: &[&str]) -> Output {
        cohort(self.folder.path(), &self.offline(args))
    }

    /// What the KMS would let the recipe's CVM open.
    fn opened(&self, file: &[u8]) -> Vec<u8> {
        let envelope = sealed::read_header(&mut &file[..]).unwrap();
        let key = wrap_key_from_root(&root().sealing, &envelope.context(), envelope.enc()).unwrap();
        sealed::open(&mut &file[..], &key, 1 << 30).unwrap().0.to_vec()
    }
}

#[test]
fn a_saved_root_seals_without_a_network() {
    let site = Site::new();
    let output = site.run(&["seal", "--owner", "hospital-A", "--in", "a.csv"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("-> ./sealed/a.tar\n2 rows"), "{said}");
    assert_eq!(site.opened(&fs::read(site.path("sealed/a.tar")).unwrap()), DATA);
    let output = site.run(&["seal", "--owner", "hospital-A", "--in", "a.csv", "--out", "b.tar", "--json"]);
    let members = |bytes: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        names.join(" ")
    };
    // Programs read these: one that goes or is renamed breaks them.
    assert_eq!(
        members(&output.stdout),
        "app chain_id compose_hash dataset_id file kind owner plain_bytes root_epoch root_key_id rows sealed_bytes"
    );
    let card = cohort(site.folder.path(), &["inspect", "sealed/a.tar", "--json"]);
    assert_eq!(
        members(&card.stdout),
        "algo analysis_app_id analysis_compose_hash chain_id dataset_id file kem kind owner plain_bytes root_epoch \
         root_key_id rows schema sealed_bytes tags wrap_key"
    );
    let card: serde_json::Value = serde_json::from_slice(&card.stdout).unwrap();
    assert_eq!((&card["rows"], &card["analysis_app_id"]), (&2.into(), &APP.into()));
}

#[test]
fn standard_input_and_output_carry_any_length() {
    let site = Site::new();
    let data = vec![7u8; (9 << 20) + 1];
    site.write("big", &data);
    let args = site.offline(&["seal", "--owner", "hospital-A", "--in", "-", "--out", "-", "--json"]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_cohort"))
        .args(args)
        .current_dir(site.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&data));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(site.opened(&output.stdout) == fs::read(site.path("big")).unwrap());
    let said = text(&output.stderr);
    let report: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&report["file"], &report["sealed_bytes"]), (&"-".into(), &output.stdout.len().into()));
}

#[test]
fn a_full_disk_and_a_reader_that_leaves_end_with_2() {
    let site = Site::new();
    let args = site.offline(&["seal", "--owner", "hospital-A", "--in", "a.csv", "--out", "-"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cohort"))
        .args(&args)
        .current_dir(site.folder.path())
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("error: cannot write -: No space left") && said.contains("hint: free space"),
        "{said}"
    );
}

#[test]
fn a_recipe_follows_another_by_the_recovery_file() {
    let site = Site::new();
    let seal = ["seal", "--owner", "hospital-A", "--in", "a.csv", "--recovery-file", "a.key"];
    assert_eq!(site.run(&seal).status.code(), Some(0));
    let reseal = ["reseal", "sealed/a.tar", "--recovery-file", "a.key"];
    let output = site.run(&reseal);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("sealed for this recipe already") && said.contains("--compose"), "{said}");

    let output = site.run(&[&reseal[..], &["--compose", "second.json", "--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let file = site.path(report["file"].as_str().unwrap());
    let hash = report["compose_hash"].as_str().unwrap();
    assert!(file.ends_with(format!("sealed/a-{}.tar", &hash[2..10])), "{}", file.display());
    assert_eq!(site.opened(&fs::read(file).unwrap()), DATA);
    let said = text(&output.stdout) + &text(&output.stderr);
    let key = fs::read_to_string(site.path("a.key")).unwrap();
    let key: serde_json::Value = serde_json::from_str(&key).unwrap();
    assert!(!said.contains(&key["data_key"].as_str().unwrap()[2..18]), "the key is not printed");
}

#[test]
fn a_wrong_owner_a_changed_root_and_another_registry_are_refused_offline() {
    let site = Site::new();
    let output = site.run(&["seal", "--owner", "hospital-Z", "--in", "a.csv"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("no dataset of hospital-Z") && said.contains("hospital-A, hospital-B"), "{said}");

    let seal = ["seal", "--owner", "hospital-A", "--in", "a.csv"];
    let output = site.run(&[&seal[..], &["--registry", APP]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the saved root is of registry"));

    let mut saved: serde_json::Value =
        serde_json::from_slice(&fs::read(site.path("root.json")).unwrap()).unwrap();
    let statement = &mut saved["statement"];
    let other = RootKeys::derive(&SecretBytes::new([8; 32]), 0).unwrap();
    statement["sealing_key"] = format!("0x{}", hex::encode(other.sealing.public_key().as_bytes())).into();
    site.write("root.json", saved.to_string().as_bytes());
    let output = site.run(&seal);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is not signed by"), "{}", text(&output.stderr));
    assert!(!site.path("sealed").exists());
}

/// What a program of that name leaves when it is aborted while it reads standard input: does the system dump its memory?
fn dumps_core(program: &str, args: &[&str], folder: &Path) -> bool {
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -c unlimited 2> /dev/null; exec \"$@\"", "sh", program])
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds: when all is written, the program reads.
    stdin.write_all(&vec![b'1'; 3 << 20]).unwrap();
    assert!(Command::new("kill").args(["-ABRT", &child.id().to_string()]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(6));
    status.core_dumped()
}

#[test]
fn no_core_dump_holds_rows_or_keys() {
    let site = Site::new();
    if !dumps_core("cat", &[], site.folder.path()) {
        println!("skipped: this system dumps no process's memory");
        return;
    }
    let args = site.offline(&["seal", "--owner", "hospital-A", "--in", "-"]);
    assert!(!dumps_core(env!("CARGO_BIN_EXE_cohort"), &args, site.folder.path()));
}

#[test]
fn ctrl_c_while_a_stream_is_read_leaves_nothing() {
    let site = Site::new();
    let args = site.offline(&["seal", "--owner", "hospital-A", "--in", "-", "--recovery-file", "a.key"]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_cohort"))
        .args(args)
        .current_dir(site.folder.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It stays open: only the signal can end the program.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![1; 3 << 20]).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert!(!child.wait().unwrap().success());
    drop(stdin);
    let left: Vec<_> = fs::read_dir(site.path("sealed"))
        .into_iter()
        .flatten()
        .chain(fs::read_dir(site.folder.path()).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".tar") || name.starts_with(".cohort") || name == "a.key")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
