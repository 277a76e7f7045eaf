//! What agent and KMS print: no row and no key, however much they are asked to log.

use std::{process::Stdio, time::Duration};

use cohort_cli::dev::{HOSPITALS, Stack};
use cohort_guest::GuestAgent;
use cohort_protocol::{
    hpke::SecretBytes,
    root::RootKeys,
    sealed::{read_header, wrap_key_from_root},
};
use tokio::process::Command;

use super::support::{approve, deployed, ok, programs, run};

/// Stands in every row, in a column that the recipe reads.
const MARKER: &str = "Qx7marker";
/// Ids of patients begin with it.
const ID: u64 = 7_391_548_260_000;

/// A secret in the forms in which a log could have it: hex, and as Rust prints bytes.
fn forms(secret: &[u8]) -> Vec<String> {
    let list = secret.iter().map(ToString::to_string).collect::<Vec<_>>();
    vec![hex::encode(secret), hex::encode_upper(secret), list.join(", "), list.join(",")]
}

/// Keys of the KMS, of the agent, and of each sealed file.
async fn secrets(stack: &Stack) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut add = |name: &str, key: &SecretBytes| found.push((name.to_owned(), forms(key.expose_secret())));
    let root = GuestAgent::new(&stack.path("kms-dstack.sock")).key("cohort-kms-root/1", "").await.unwrap();
    let keys = RootKeys::derive(&root, 0).unwrap();
    assert_eq!(keys.address(), stack.kms_root, "it is the KMS's root secret");
    add("root secret", &root);
    let guest = GuestAgent::new(&stack.path("dstack.sock"));
    for path in ["cohort/gas", "cohort/resume"] {
        add(path, &guest.key(path, "").await.unwrap());
    }
    for owner in [HOSPITALS[0].owner, HOSPITALS[1].owner] {
        let mut file = std::fs::File::open(stack.path(&format!("published/{owner}.tar"))).unwrap();
        let envelope = read_header(&mut file).unwrap();
        add(owner, &wrap_key_from_root(&keys.sealing, &envelope.context(), envelope.enc()).unwrap());
    }
    found
}

/// Forty patients whose ids and sex are found nowhere else.
async fn seal_marked(stack: &Stack, index: usize) {
    let owner = HOSPITALS[index].owner;
    let row = |at: u64| {
        let sex = if at.is_multiple_of(2) { MARKER } else { "Male" };
        format!("{},{},{sex},130,220,{}\n", ID + at, 40 + at % 30, at % 2)
    };
    let rows: String = (0..40).map(row).collect();
    let data = format!("data/{owner}.csv");
    std::fs::write(stack.path(&data), format!("id,age,sex,trestbps,chol,num\n{rows}")).unwrap();
    let file = format!("sealed/{owner}.tar");
    ok(stack, &["seal", "--owner", owner, "--in", &data]).await;
    let key = stack.owners[index].key();
    let region = HOSPITALS[index].region;
    ok(stack, &["dataset", "register", &file, "--region", region, "--kind", "EHR", "--key-file", &key]).await;
    std::fs::copy(stack.path(&file), stack.path(&format!("published/{owner}.tar"))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_rows_nor_keys_are_logged_at_any_level() {
    let mut stack = deployed("logs").await;
    stack.log_filter = Some("trace".to_owned());
    stack.start_services().await.unwrap_or_else(|f| panic!("{}", f.message));
    tokio::join!(seal_marked(&stack, 0), seal_marked(&stack, 1));
    approve(&stack, &[0, 1, 2, 3]).await;
    let analyst = stack.analyst.key();
    ok(&stack, &run(&analyst, "hospital-A,hospital-B", "result.json")).await;
    let secrets = secrets(&stack).await;
    (stack.agent, stack.kms) = (None, None); // all is written

    for name in ["agent", "kms"] {
        let bytes = std::fs::read(stack.path(&format!("logs/{name}.log"))).unwrap();
        let log = String::from_utf8_lossy(&bytes);
        assert!(log.contains("TRACE") && log.contains("listening "), "{name} logs all it can, both streams");
        for row in [MARKER.to_owned(), (ID / 10_000).to_string()] {
            assert!(!log.contains(&row), "{name} logged {row} of a row");
        }
        for (secret, forms) in &secrets {
            for form in forms {
                assert!(!log.contains(form), "{name} logged the key {secret}");
            }
        }
    }
}

/// The message of a panic can hold anything; standard output that nobody reads makes a real one.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_agent_tells_its_place_alone() {
    let mut stack = deployed("panic").await;
    stack.start_services().await.unwrap_or_else(|f| panic!("{}", f.message));
    stack.agent = None;
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(programs().join("cohort-agent"))
        .args(stack.agent_command())
        .stdin(Stdio::null())
        .stdout(full)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
        .wait_with_output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.lines().any(|line| line.starts_with("panic at ")), "{said}");
    assert!(!said.contains("failed printing") && !said.contains("No space left"), "{said}");
}
