//! `cohort recipe`: from an empty folder to a rehearsed recipe, and every mistake on the way.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

const KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const ANALYST: &str = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf";
const DIGEST: &str = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        let key = desk.path("analyst.key");
        fs::write(&key, KEY).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::copy(project("test/data/heart-disease/app-compose.json"), desk.path("study.json")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cohort"));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null()).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    fn fails(&self, args: &[&str], code: i32, word: &str) {
        let output = self.run(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?}: {word:?} is not in {said}");
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }
}

fn project(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn new<'a>(image: &'a str, out: &'a str) -> Vec<&'a str> {
    let titled =
        ["recipe", "new", "--title", "Patients by age", "--owner", "hospital-A", "--owner", "hospital-B"];
    [&titled[..], &["--unit", "patient", "--column", "age:int64", "--image", image, "--out", out]].concat()
}

#[test]
fn a_new_recipe_passes_lint_and_has_a_cost_and_a_hash() {
    let desk = Desk::new();
    let image = format!("registry.example.org/agent{DIGEST}");
    desk.ok(&new(&image, "new.json"));
    let made = desk.json("new.json");
    assert_eq!(made["cohort"]["privacy"]["unit"], "patient");
    assert_eq!(made["cohort"]["datasets"]["owners"], json!(["hospital-A", "hospital-B"]));
    assert!(made["docker_compose_file"].as_str().unwrap().contains(&image));
    let of = ["--compose", "new.json"];
    assert!(desk.ok(&[&["recipe", "lint"], &of[..]].concat()).contains("nothing found"));
    assert!(desk.ok(&[&["recipe", "cost"], &of[..]].concat()).contains("declared 1)"));
    let english = desk.ok(&[&["recipe", "explain"], &of[..]].concat());
    let turkish = desk.ok(&[&["recipe", "explain", "--lang", "tr"], &of[..]].concat());
    assert!(english.contains("hospital-A") && turkish.contains("hospital-A") && english != turkish);
    let hashes: Value =
        serde_json::from_str(&desk.ok(&[&["recipe", "hash", "--json"], &of[..]].concat())).unwrap();
    assert_eq!(hashes["compose_hash"].as_str().unwrap().len(), 66);

    desk.fails(&new(&image, "new.json"), 2, "new.json");
    desk.fails(&new("registry.example.org/agent:latest", "tag.json"), 2, "mutable-image");
    desk.fails(&[&new(&image, "x.json")[..], &["--column", "age"]].concat(), 2, "NAME:TYPE");
    desk.fails(&[&new(&image, "x.json")[..], &["--column", "a b:int64"]].concat(), 2, "makes no recipe");
    assert!(!desk.path("tag.json").exists() && !desk.path("x.json").exists());
}

#[test]
fn a_new_python_recipe_holds_the_script() {
    let desk = Desk::new();
    let image = format!("registry.example.org/agent{DIGEST}");
    fs::write(desk.path("recipe.py"), "from cohort import emit_signed\nemit_signed({\"result\": 0.5})\n")
        .unwrap();
    let python = ["--engine", "python"];
    desk.ok(&[&new(&image, "default.json")[..], &python].concat());
    desk.ok(&[&new(&image, "own.json")[..], &python, &["--script", "recipe.py"]].concat());
    assert!(desk.json("own.json")["cohort"]["python"]["script"].as_str().unwrap().contains("0.5"));
    for file in ["default.json", "own.json"] {
        assert!(desk.ok(&["recipe", "lint", "--compose", file]).contains("nothing found"));
    }
    desk.fails(&[&new(&image, "x.json")[..], &python, &["--script", "none.py"]].concat(), 2, "none.py");
}

#[test]
fn lint_ends_with_1_and_names_what_it_found() {
    let desk = Desk::new();
    let mut file = desk.json("study.json");
    let services = file["docker_compose_file"].as_str().unwrap().replace("@sha256:", ":");
    file["docker_compose_file"] = json!(services + "    privileged: true\n");
    fs::write(desk.path("bad.json"), file.to_string()).unwrap();
    let output = desk.run(&["recipe", "lint", "--compose", "bad.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("error[mutable-image]"), "{}", text(&output.stdout));
    file["cohort"]["measures"][2].as_object_mut().unwrap().remove("upper");
    fs::write(desk.path("unbounded.json"), file.to_string()).unwrap();
    desk.fails(&["recipe", "lint", "--compose", "unbounded.json"], 2, "upper");
}

#[test]
fn a_rehearsal_is_signed_and_good_for_this_very_file_alone() {
    let desk = Desk::new();
    let of = ["--compose", "study.json"];
    let rehearse = |out| {
        let args = ["recipe", "rehearse", "--rows", "200", "--key-file", "analyst.key", "--out", out];
        [&args[..], &of].concat()
    };
    let said = desk.ok(&rehearse("rehearsal.json"));
    assert!(said.contains("200 synthetic rows") && said.contains(ANALYST), "{said}");
    desk.fails(&rehearse("rehearsal.json"), 2, "rehearsal.json");
    let check = |file, compose| ["recipe", "check-rehearsal", file, "--compose", compose];
    assert!(desk.ok(&check("rehearsal.json", "study.json")).contains("the record is whole"));

    let whole = desk.json("rehearsal.json");
    assert_eq!(whole["payload"]["measures"].as_array().unwrap().len(), 5);
    let edited = |pointer: &str, value: Value| {
        let mut record = whole.clone();
        *record.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        fs::write(desk.path("edited.json"), record.to_string()).unwrap();
    };
    for (pointer, value) in [
        ("/payload/measures/0/cells/0/value", json!(1_000_000)),
        ("/rows_per_owner", json!(1_000_000)),
        ("/seed", json!(2)),
        ("/duration_seconds", json!(86_400)),
        ("/analyst", json!("0x0000000000000000000000000000000000000001")),
        ("/signature", json!("0x")),
    ] {
        edited(pointer, value);
        desk.fails(&check("edited.json", "study.json"), 1, "not signed by the analyst");
    }
    edited("/format", json!("cohort-rehearsal/2"));
    desk.fails(&check("edited.json", "study.json"), 1, "another format");
    let mut more = whole.clone();
    more["more"] = json!(1);
    fs::write(desk.path("edited.json"), more.to_string()).unwrap();
    desk.fails(&check("edited.json", "study.json"), 2, "more");
    // One more space in the app-compose file is another file.
    let mut other = fs::File::options().append(true).open(desk.path("study.json")).unwrap();
    other.write_all(b" ").unwrap();
    desk.fails(&check("rehearsal.json", "study.json"), 1, "another app-compose file");
}

#[test]
fn the_committed_record_is_read() {
    let desk = Desk::new();
    let vector = project("test/vectors/rehearsal/heart-disease.json");
    let vector = vector.to_str().unwrap();
    let said = desk.ok(&["recipe", "check-rehearsal", vector, "--compose", "study.json"]);
    assert!(said.contains(ANALYST), "{said}");
}

/// Web3 Secret Storage's own example; its password is `testpassword`.
const KEYSTORE: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
    "ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2","kdfparams":{"c":262144,
    "dklen":32,"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
    "mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},"version":3}"#;
const KEYSTORE_ACCOUNT: &str = "0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b";

impl Desk {
    /// Types a line once the terminal, which is of util-linux's `script`, hides what is typed: the exit code, and all that
    /// stood on the screen.
    fn typed(&self, command: &str, asked: &str, line: &str) -> (Option<i32>, String) {
        let command = format!("tty > tty; exec {} {command}", env!("CARGO_BIN_EXE_cohort"));
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut seen = Vec::new();
        let mut byte = [0];
        while !text(&seen).contains(asked) && screen.read(&mut byte).unwrap() == 1 {
            seen.push(byte[0]);
        }
        let terminal = fs::read_to_string(self.path("tty")).unwrap();
        let hides = || {
            let state = Command::new("stty").args(["-a", "-F", terminal.trim()]).output().unwrap();
            text(&state.stdout).contains("-echo ")
        };
        assert!(
            (0..1000).any(|_| hides() || {
                thread::sleep(Duration::from_millis(10));
                false
            }),
            "what is typed is shown"
        );
        writeln!(keyboard, "{line}").unwrap();
        screen.read_to_end(&mut seen).unwrap();
        (child.wait().unwrap().code(), text(&seen))
    }
}

#[test]
fn the_password_of_a_keystore_is_asked_for_on_the_terminal_and_not_shown() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: the password prompt: util-linux's script is not installed");
        return;
    }
    let desk = Desk::new();
    fs::write(desk.path("analyst.json"), KEYSTORE).unwrap();
    let rehearse = "recipe rehearse --rows 200 --compose study.json --keystore analyst.json --out typed.json";
    let (code, screen) = desk.typed(rehearse, "password of analyst.json: ", "wrongpassword");
    assert!(code == Some(2) && screen.contains("the password is wrong"), "{code:?}: {screen}");
    let (code, screen) = desk.typed(rehearse, "password of analyst.json: ", "testpassword");
    assert!(code == Some(0) && screen.contains(KEYSTORE_ACCOUNT), "{code:?}: {screen}");
    assert!(!screen.contains("testpassword"), "what is typed does not stand on the screen: {screen}");
    desk.fails(&rehearse.replace("typed", "piped").split(' ').collect::<Vec<_>>(), 2, "answer on a terminal");
}

#[test]
fn a_python_recipe_is_rehearsed_with_its_script_s_errors() {
    let python = std::env::var_os("COHORT_TEST_PYTHON").map(PathBuf::from);
    let python = python.unwrap_or_else(|| project("target/venv/bin/python"));
    if !python.exists() {
        let _ = writeln!(std::io::stderr(), "skipped: no target/venv; script/python-env makes it");
        return;
    }
    let desk = Desk::new();
    let python = std::path::absolute(python).unwrap();
    let image = format!("registry.example.org/agent{DIGEST}");
    let made = |name: &str, script: &str| {
        fs::write(desk.path("recipe.py"), script).unwrap();
        desk.ok(&[&new(&image, name)[..], &["--engine", "python", "--script", "recipe.py"]].concat());
        // A rehearsal takes the declared seconds, as a run does.
        let mut file = desk.json(name);
        file["cohort"]["python"]["seconds"] = json!(20);
        file["cohort"]["python"]["memory_mib"] = json!(1024);
        fs::write(desk.path(name), file.to_string()).unwrap();
    };
    made(
        "good.json",
        "from phala.dstack import unwrap, emit_signed\nemit_signed({\"result\": len(unwrap(\"A\")) / 1000})\n",
    );
    made("bad.json", "from phala.dstack import unwrap\nunwrap(\"hospital-X\")\n");
    let rehearse = |file, out| {
        let python = python.to_str().unwrap();
        let record = ["--rows", "100", "--key-file", "analyst.key", "--python", python, "--out", out];
        [&["recipe", "rehearse", "--compose", file], &record[..]].concat()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            desk.ok(&rehearse("good.json", "good.rehearsal"));
            desk.ok(&["recipe", "check-rehearsal", "good.rehearsal", "--compose", "good.json"]);
        });
        scope.spawn(|| desk.fails(&rehearse("bad.json", "bad.rehearsal"), 1, "hospital-X"));
    });
    assert!(!desk.path("bad.rehearsal").exists());
}
