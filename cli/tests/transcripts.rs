//! One transcript a mistake that sealing can meet: exactly what is printed, the exit code, and nothing left behind.
//!
//! Chain and KMS are played by one small server, so that each answer can be made wrong on its own.

#[path = "transcripts/world.rs"]
mod world;

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio, sync::Arc, time::Duration};

use arrow::array::{Float64Array, Int32Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use world::{APP, REGISTRY, World};

const SEAL: [&str; 5] = ["seal", "--owner", "hospital-A", "--in", "a.csv"];
const NO_TABLE: &str = "warning: the recipe cannot read <FILE> as the data of hospital-A: it reads tables, in Parquet or CSV; its runs would fail\n";
const REMEMBERED: &str = "warning: platform-root.pem is a development root: the KMS's evidence proves nothing about hardware
note: first use of KMS root <ROOT0> (epoch 0, on a development platform, NOT INTEL): verified, and remembered in known-roots.json
";

#[tokio::test(flavor = "multi_thread")]
async fn the_first_use_verifies_and_remembers_and_the_next_one_compares() {
    let world = World::start().await;
    world.transcript(&SEAL, 0, REMEMBERED).await;
    let mode = fs::metadata(world.path("known-roots.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = [&SEAL[..], &["--out", "again.tar"]].concat();
    world.transcript(&again, 0, "").await;
    // Remembered: the evidence is not asked for again, contract and registry are.
    world.change(|state| state.evidence = None);
    world.transcript(&[&SEAL[..], &["--out", "third.tar"]].concat(), 0, "").await;
    world.change(|state| state.retired = true);
    world
        .transcript(
            &[&SEAL[..], &["--out", "fourth.tar"]].concat(),
            1,
            "error: the registry does not list this root as epoch 0 in force
hint: do not seal to it; ask the consortium which KMS it agreed on
",
        )
        .await;
    assert!(!world.path("fourth.tar").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_root_is_refused_until_it_is_accepted() {
    let world = World::start().await;
    world.transcript(&SEAL, 0, REMEMBERED).await;
    world.change(|state| state.use_root(1));
    let changed = "error: the KMS root changed: registry <REGISTRY> on chain 31337 had root <ROOT0>, epoch 0, key <KEY0> when it was verified on <DAY>; now it has root <ROOT1>, epoch 1, key <KEY1>
hint: ask the consortium whether it rotated its root; if it did: cohort kms verify --accept-change
";
    let again = [&SEAL[..], &["--out", "again.tar"]].concat();
    world.transcript(&again, 1, changed).await;
    let warning = REMEMBERED.lines().next().unwrap().to_owned() + "\n";
    world.transcript(&["kms", "verify"], 1, &(warning.clone() + changed)).await;
    assert!(!world.path("again.tar").exists());
    world.transcript(&["kms", "verify", "--accept-change", "--out", "root1.json"], 0, &warning).await;
    world.transcript(&again, 0, "").await;
    // A file of the old root is refused like the old root itself, also without a network.
    world.change(|state| state.use_root(0));
    world.transcript(&[&SEAL[..], &["--out", "old.tar"]].concat(), 1, &world.swap(changed)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kms_verify_says_what_it_checked_and_what_not() {
    let world = World::start().await;
    let ran = world.run(&["kms", "verify", "--out", "root.json"]).await;
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let expected = "ok    statement          <ROOT0>, epoch 0, signs sealing key <KEY0>
ok    contract           <APP> pins this root
ok    registry           <REGISTRY> lists it, not retired
ok    quote              verified to the development root, TCB UpToDate
ok    quote binding      its report data names this chain, registry, epoch, root and sealing key
ok    measurement        the registry lists mr_aggregated <MR>
ok    device             the registry lists device <DEVICE>
ok    OS image           the registry lists <IMAGE>, which the guest image says it is
ok    boot rule          isKmsAllowed of the registry: it may run as a KMS
skip  KMS code           what compose hash <COMPOSE> does: compare it with a release that you trust
skip  root secret        who may boot under app id <KMSAPP>, and so has the same root: read that contract
skip  endpoints          one RPC endpoint was asked; it could lie about the contract and the registry
ok    remembered root    none was; this one is from now on
remembered in known-roots.json
";
    assert_eq!(ran.stdout, expected);
    let ran = world.run(&["kms", "verify", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["verified"], &report["platform"]), (&true.into(), &"development".into()));
    // The saved file serves offline, for its own study only.
    let offline = [&SEAL[..], &["--offline", "--root-file", "root.json"]].concat();
    let note = "note: offline: KMS root <ROOT0> (epoch 0, on a development platform, NOT INTEL) as verified on <DAY>; whether it was retired since is not asked\n";
    world.stop();
    world.transcript(&offline, 0, note).await;
    world.transcript(&[&SEAL[..], &["--offline", "--out", "b.tar"]].concat(), 0, note).await;
    world
        .transcript(
            &[&offline[..], &["--out", "c.tar", "--app", REGISTRY]].concat(),
            1,
            "error: the saved root is of registry <REGISTRY> and contract <APP>, this study's are <REGISTRY> and <REGISTRY>
hint: save it again where there is a network: cohort kms verify --out FILE
",
        )
        .await;
    world
        .transcript(
            &[&SEAL[..], &["--offline", "--out", "d.tar", "--registry", APP]].concat(),
            2,
            "error: no KMS root of registry <APP> is remembered in known-roots.json
hint: where there is a network: cohort kms verify; or give --root-file FILE
",
        )
        .await;
    assert!(!world.path("c.tar").exists() && !world.path("d.tar").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kms_that_the_registry_does_not_allow_gets_no_data() {
    let world = World::start().await;
    let warning = REMEMBERED.lines().next().unwrap().to_owned() + "\n";
    world.change(|state| state.measurement_listed = false);
    let refused = warning.clone()
        + "error: this KMS cannot be trusted with data: measurement: the registry lists mr_aggregated <MR>
hint: see all of it: cohort kms verify
";
    world.transcript(&SEAL, 1, &refused).await;
    let ran = world.run(&["kms", "verify"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("FAIL  measurement"), "{}", ran.stdout);
    assert!(ran.stdout.contains("FAIL  boot rule          isKmsAllowed of the registry: it may not run as a KMS: Aggregated MR not allowed"));
    assert_eq!(
        ran.stderr,
        warning.clone()
            + "error: 2 of 13 checks failed\nhint: do not seal to this KMS; tell the consortium\n"
    );
    assert!(!world.path("known-roots.json").exists(), "nothing is remembered of a KMS that was refused");
    // A quote about another root, taken from elsewhere.
    world.change(|state| {
        state.measurement_listed = true;
        state.evidence = state.evidence_of(1);
    });
    let refused = warning
        + "error: the key service's evidence does not verify: the quote's report data is not the expected value: it was made for something else (report_data_mismatch)
hint: do not seal to this KMS; tell the consortium
";
    world.transcript(&SEAL, 1, &refused).await;
    world.change(|state| state.evidence = None);
    world
        .transcript(
            &SEAL,
            1,
            "error: the KMS shows no evidence of its machine: its root may lie in a file anywhere (evidence_missing)
hint: ask its operator to run it in a confidential VM; cohort kms verify --insecure-no-evidence takes it as it is
",
        )
        .await;
    assert!(!world.path("sealed").exists());
    let insecure = [&SEAL[..], &["--insecure-no-evidence"]].concat();
    world
        .transcript(
            &insecure,
            0,
            "note: first use of KMS root <ROOT0> (epoch 0, WITHOUT evidence of its machine): verified, and remembered in known-roots.json\n",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_about_owner_network_and_kms() {
    let world = World::start().await;
    let seal = |owner: &'static str| ["seal", "--owner", owner, "--in", "a.csv"];
    world
        .transcript(
            &seal("hospital-Z"),
            2,
            "error: the recipe has no dataset of hospital-Z
hint: its owners are: hospital-A, hospital-B, hospital-C, hospital-D
",
        )
        .await;
    // In the recipe, but not in this contract.
    world
        .transcript(
            &seal("hospital-D"),
            2,
            "error: hospital-D is not an owner of <APP>
hint: its owners are: hospital-A, hospital-B, hospital-C
",
        )
        .await;
    world
        .transcript(
            &[&SEAL[..], &["--app", REGISTRY]].concat(),
            2,
            "error: there is no contract at <REGISTRY> on chain 31337
hint: check --app and --rpc-url: another network?
",
        )
        .await;
    world.change(|state| state.chain_id = 1);
    world
        .transcript(
            &SEAL,
            1,
            "error: the KMS speaks for chain 31337 and registry <REGISTRY>, this study is on chain 1 and <REGISTRY>
hint: do not seal to it; ask the consortium which KMS it agreed on
",
        )
        .await;
    world.change(|state| state.chain_id = 31337);
    world.change(|state| state.pinned = APP.parse().unwrap());
    world
        .transcript(
            &SEAL,
            1,
            "error: the KMS's root is <ROOT0>, the contract pins <APP>
hint: do not seal to it; ask the consortium which KMS it agreed on
",
        )
        .await;
    world.change(|state| state.use_root(0));
    world.change(|state| state.kms_up = false);
    world
        .transcript(
            &SEAL,
            3,
            "error: the KMS at <KMS>/ answered HTTP 502 Bad Gateway
hint: check the address, and the service's log
",
        )
        .await;
    world
        .transcript(
            &[&SEAL[..], &["--kms-url", "http://127.0.0.1:1"]].concat(),
            3,
            "error: the KMS at http://127.0.0.1:1/ does not answer: error sending request
hint: check the address, and that the service runs
",
        )
        .await;
    world.stop();
    let ran = world.run(&SEAL).await;
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let (endpoint, rest) =
        ran.stderr.split_once(": the RPC endpoint does not answer as expected: ").expect(&ran.stderr);
    assert!(endpoint.starts_with("error: 127.0.0.1:") && !rest.contains("127.0.0.1"), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("hint: check --rpc-url, and that --app is a DstackApp on that chain\n"));
    assert!(!world.path("sealed").exists() && !world.path("known-roots.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipe_that_nobody_proposed_is_told() {
    let world = World::start().await;
    world.change(|state| state.proposed = false);
    let warning = "warning: nobody has proposed the recipe <HASH> on chain yet: until its owners approve it, nothing opens this file; compare it with theirs: cohort recipe hash\n";
    world.transcript(&SEAL, 0, &(REMEMBERED.to_owned() + warning)).await;
}

/// Sealed all the same: the owner may know better, and `cohort reseal` gives it another recipe.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_recipe_cannot_read_is_told() {
    let world = World::start().await;
    world.transcript(&SEAL, 0, REMEMBERED).await;
    let warning = |file: &str, misfit: &str| {
        format!(
            "warning: the recipe cannot read {file} as the data of hospital-A: {misfit}; its runs would fail\n"
        )
    };
    let seal = |input: &'static str| ["seal", "--owner", "hospital-A", "--in", input];
    fs::write(world.path("short.csv"), "id,age,age,sex\n1,63,63,Male\n").unwrap();
    let misfit = "several columns age, no column trestbps, no column chol, no column num";
    world.transcript(&seal("short.csv"), 0, &warning("short.csv", misfit)).await;
    let column = |name: &str, values: arrow::array::ArrayRef| (name.to_owned(), values);
    let whole = || Arc::new(Int32Array::from(vec![1])) as arrow::array::ArrayRef;
    let batch = RecordBatch::try_from_iter([
        column("id", whole()),
        column("age", Arc::new(Float64Array::from(vec![63.0]))),
        column("sex", Arc::new(StringArray::from(vec!["Male"]))),
        column("trestbps", whole()),
        column("chol", whole()),
        column("num", Arc::new(StringArray::from(vec!["0"]))),
    ])
    .unwrap();
    let mut writer =
        ArrowWriter::try_new(fs::File::create(world.path("types.parquet")).unwrap(), batch.schema(), None)
            .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let misfit = "column age is float64, not int64, column num is utf8, not int64";
    world.transcript(&seal("types.parquet"), 0, &warning("types.parquet", misfit)).await;
    fs::write(world.path("scan.png"), "no table").unwrap();
    world.transcript(&seal("scan.png"), 0, &NO_TABLE.replace("<FILE>", "scan.png")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_about_files() {
    let world = World::start().await;
    world.transcript(&SEAL, 0, REMEMBERED).await;
    world
        .transcript(
            &SEAL,
            2,
            "error: ./sealed/a.tar exists already
hint: give another --out, or move the file away
",
        )
        .await;
    let seal = |input: &'static str| ["seal", "--owner", "hospital-A", "--in", input, "--out", "x.tar"];
    world
        .transcript(
            &seal("absent.parquet"),
            2,
            "error: cannot read absent.parquet: No such file or directory (os error 2)
hint: check the path after --in and its permissions
",
        )
        .await;
    fs::write(world.path("cut.parquet"), b"PAR1 this is no Parquet file PAR1").unwrap();
    world
        .transcript(
            &seal("cut.parquet"),
            2,
            "error: cut.parquet is not readable as Parquet: EOF: Parquet file too small. Size is 33 but need 543517809
hint: repair or export the file again; a file that is no Parquet needs another name or kind
",
        )
        .await;
    fs::write(world.path("ragged.csv"), "a,b\n1,2\n3\n").unwrap();
    world
        .transcript(
            &seal("ragged.csv"),
            2,
            "error: ragged.csv is not readable as CSV: line 3 has 1 cells, the header has 2
hint: repair or export the file again; a file that is no CSV needs another name or kind
",
        )
        .await;
    world
        .transcript(
            &seal("sealed"),
            2,
            "error: sealed is not a regular file
hint: give one file after --in, or - to read a pipe; pack a folder into one file first
",
        )
        .await;
    world
        .transcript(
            &[&SEAL[..], &["--out", "a.csv/x.tar"]].concat(),
            2,
            "error: cannot write a.csv/x.tar: Not a directory (os error 20)
hint: check the folder of --out and its permissions
",
        )
        .await;
    fs::write(world.path("other.json"), "{}").unwrap();
    let ran = world.run(&[&SEAL[..], &["--out", "x.tar", "--compose", "other.json"]].concat()).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.starts_with("error: other.json is not usable: "), "{}", ran.stderr);
    fs::write(world.path("no-root.json"), "{}").unwrap();
    world
        .transcript(
            &[&SEAL[..], &["--out", "x.tar", "--offline", "--root-file", "no-root.json"]].concat(),
            2,
            "error: no-root.json is not a verified root of cohort kms verify --out: missing field `format`
hint: use the file as the command that made it wrote it
",
        )
        .await;
    fs::set_permissions(world.path("known-roots.json"), fs::Permissions::from_mode(0o666)).unwrap();
    world
        .transcript(
            &[&SEAL[..], &["--out", "x.tar"]].concat(),
            2,
            "error: known-roots.json can be written by others (mode 666)
hint: look at it, then: chmod 600 known-roots.json
",
        )
        .await;
    assert!(!world.path("x.tar").exists());
}

/// A file system that takes no more than 2 MiB of one file stands for a full disk; both end in the same clean-up.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_nothing() {
    let world = World::start().await;
    world.transcript(&SEAL, 0, REMEMBERED).await;
    fs::write(world.path("big"), vec![7; 8 << 20]).unwrap();
    let seal = [
        "seal",
        "--owner",
        "hospital-A",
        "--in",
        "big",
        "--out",
        "full/big.tar",
        "--recovery-file",
        "big.key",
    ];
    let expected = NO_TABLE.replace("<FILE>", "big")
        + "error: cannot write full/big.tar: File too large (os error 27)
hint: that disk, or ulimit -f, allows no file of this size: give --out on another disk
";
    let ran = world.run_limited(&seal).await;
    assert_eq!((ran.code, ran.stderr), (2, expected));
    assert_eq!(fs::read_dir(world.path("full")).unwrap().count(), 0, "nothing is left in the folder");
    assert!(!world.path("big.key").exists());
    let full = world.run_into(&SEAL, "/dev/full").await;
    let expected = "error: cannot write -: No space left on device (os error 28)
hint: free space there, or give --out on another disk; the sealed file is as large as the input, and standard input takes as much again meanwhile (with --out - in TMPDIR)
";
    assert_eq!((full.code, full.stderr.as_str()), (2, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_leaves_nothing() {
    let world = World::start().await;
    world.transcript(&SEAL, 0, REMEMBERED).await;
    // Sparse: it takes no room on the disk, and long enough to read.
    fs::File::create(world.path("large")).unwrap().set_len(16 << 30).unwrap();
    let args =
        ["seal", "--owner", "hospital-A", "--in", "large", "--out", "-", "--recovery-file", "large.key"];
    let to_file = args.map(|arg| if arg == "-" { "cut/large.tar" } else { arg });
    for (signal, args) in [("-INT", to_file), ("-TERM", to_file), ("-TERM", args), ("-KILL", to_file)] {
        let mut child = world.command(env!("CARGO_BIN_EXE_cohort"), &args);
        let child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let id = child.id().unwrap().to_string();
        // Under way once it has listened for signals, which it does before it makes the unnamed output.
        for _ in 0..200 {
            let caught = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
            let caught =
                caught.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
            // Bits of SIGINT and SIGTERM.
            if u64::from_str_radix(&caught, 16).unwrap() & 0x4002 == 0x4002 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(tokio::process::Command::new("kill").args([signal, &id]).status().await.unwrap().success());
        let ran = world.ran(&child.wait_with_output().await.unwrap());
        let (code, last) = match signal {
            "-KILL" => (-1, ""),
            _ => (1, "error: interrupted: nothing was written\nhint: seal again when ready\n"),
        };
        let expected = NO_TABLE.replace("<FILE>", "large") + last;
        assert_eq!((ran.code, ran.stderr), (code, expected), "{signal}");
        let left = fs::read_dir(world.path("cut")).map_or(0, Iterator::count);
        assert_eq!((left, world.path("large.key").exists()), (0, false), "{signal}");
    }
}
