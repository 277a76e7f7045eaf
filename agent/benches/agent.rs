//! Sealed Parquet of six banks to a guarded aggregate, against DataFusion reading the same Parquet in clear; and the
//! study of four hospitals, on 1.6 million patients.
//!
//! `make bench-agent`, with `BENCH_ROWS` (78 million) and `BENCH_FOLDER` (`target`). Each side runs in a process of its own,
//! taking turns, best of two; what is measured is the whole of it: reading, unsealing, SQL, noise, guard.

use std::{
    env,
    error::Error,
    fs::{self, File},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};

use alloy::primitives::{Address, B256};
use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use cohort_agent::compute::{self, ComputeError, Input, Output, Sandbox};
use cohort_protocol::{
    compose::AppCompose,
    hpke::{KeyPair, SecretBytes, random_secret},
    ids::ComposeHash,
    recipe::Recipe,
    sealed::{self, CHUNK_BYTES_DEFAULT, ContentKind, SealParams, read_header, wrap_key_from_root},
};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde_json::{Value, json};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const ROWS: u64 = 78_000_000;
const BANKS: [&str; 6] = ["bank-1", "bank-2", "bank-3", "bank-4", "bank-5", "bank-6"];
/// Patients of the hospitals' study, at all of them together.
const PATIENTS: u64 = 1_600_000;
/// The recipe of the demo and of the tests, with its four hospitals.
const STUDY: &str = include_str!("../../test/data/heart-disease/app-compose.json");
/// Longest time for the study.
const STUDY_SECONDS: f64 = 5.0;
const ROUNDS: usize = 2;
const BATCH_ROWS: u64 = 1 << 16;
const GROUP_ROWS: usize = 1 << 20;
/// One account has so many transactions, on average, at all banks together.
const TRANSACTIONS: u64 = 13;
const LARGEST: u64 = 64 << 30;

/// The same query on both sides; `cohort` is the union of the banks.
const SQL: &str = "SELECT account, SUM(amount) AS total, COUNT(*) AS transfers, \
    SUM(CASE WHEN abroad THEN 1 ELSE 0 END) AS abroad FROM cohort GROUP BY account";

/// What the measures compute of its result, without noise.
const MEASURES: &str = "SELECT CASE WHEN transfers < 10 THEN 0 WHEN transfers < 15 THEN 1 ELSE 2 END AS band, \
    COUNT(*), SUM(LEAST(GREATEST(total, 0), 1000000)), SUM(CASE WHEN abroad > 0 THEN 1 ELSE 0 END) \
    FROM persons GROUP BY 1";

fn main() -> Outcome {
    let folder = PathBuf::from(env::var("BENCH_FOLDER").unwrap_or_else(|_| "target".into()));
    let folder = folder.join("bench-agent");
    match env::args().nth(1).as_deref() {
        // A slot hides how long the SQL takes, and that is what is measured here.
        Some("sealed") => report(sealed_side(&folder, &banks()?, compute::compute_at_once)?),
        Some("plain") => report(plain_side(&folder)?),
        Some("study") => report(sealed_side(&folder, &study()?, compute::compute)?),
        _ => contest(&folder),
    }
}

fn contest(folder: &Path) -> Outcome {
    let rows = env::var("BENCH_ROWS").map_or(Ok(ROWS), |text| text.parse::<u64>())?;
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    let outcome = make(folder, &study()?, write_hospital, PATIENTS)
        .and_then(|()| time_study())
        .and_then(|()| make(folder, &banks()?, write_bank, rows))
        .and_then(|()| compare(rows));
    fs::remove_dir_all(folder)?;
    outcome
}

fn time_study() -> Outcome {
    let mut best = (f64::MAX, 0);
    for _ in 0..ROUNDS {
        let (seconds, mib) = child("study")?;
        best = (best.0.min(seconds), best.1.max(mib));
    }
    let (seconds, mib) = best;
    println!("{PATIENTS} patients, 4 hospitals, {} cores: {seconds:.2} s, peak {mib} MiB", cores());
    let met = verdict(seconds <= STUDY_SECONDS);
    println!("bench agent_study_seconds ratio={seconds:.2} target=<={STUDY_SECONDS} {met}");
    Ok(())
}

fn compare(rows: u64) -> Outcome {
    let (mut ours, mut peers) = ((f64::MAX, 0), (f64::MAX, 0));
    for _ in 0..ROUNDS {
        for (side, best) in [("plain", &mut peers), ("sealed", &mut ours)] {
            let (seconds, mib) = child(side)?;
            *best = (best.0.min(seconds), best.1.max(mib));
        }
    }
    println!("{rows} transactions, {} banks, {} cores", BANKS.len(), cores());
    println!("DataFusion in clear    {:.2} s, peak {} MiB", peers.0, peers.1);
    println!("sealed to aggregate    {:.2} s, peak {} MiB", ours.0, ours.1);
    let ratio = ours.0 / peers.0;
    println!("bench agent_vs_datafusion ratio={ratio:.2} target=<=1.5 {}", verdict(ratio <= 1.5));
    let memory = ours.1 as f64 / 6144.0;
    println!("bench agent_memory ratio={memory:.2} target=<=1 {}", verdict(memory <= 1.0));
    Ok(())
}

const fn verdict(met: bool) -> &'static str {
    if met { "ok" } else { "MISS" }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn child(side: &str) -> Outcome<(f64, u64)> {
    let output = Command::new(env::current_exe()?).arg(side).output()?;
    if !output.status.success() {
        return Err(format!("{side}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let (seconds, mib) = text.trim().split_once(' ').ok_or("no measurement")?;
    Ok((seconds.parse()?, mib.parse()?))
}

/// Seconds, and peak resident memory of this process in MiB, as Linux counts it.
fn report(seconds: f64) -> Outcome {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    let mib = line.split_whitespace().nth(1).ok_or("no VmHWM")?.parse::<u64>()? / 1024;
    println!("{seconds} {mib}");
    Ok(())
}

fn plain(folder: &Path, owner: &str) -> PathBuf {
    folder.join(format!("{owner}.parquet"))
}

fn sealed_file(folder: &Path, owner: &str) -> PathBuf {
    folder.join(format!("{owner}.tar"))
}

fn key_file(folder: &Path, owner: &str) -> PathBuf {
    folder.join(format!("{owner}.key"))
}

/// Writes part `index` of `parts` of `rows` in all.
type Write = fn(path: &Path, index: u64, parts: u64, rows: u64) -> Outcome;

/// Writes each owner's Parquet, seals it, and keeps the wrap key that a KMS would release.
fn make(folder: &Path, recipe: &Recipe, write: Write, rows: u64) -> Outcome {
    let root = KeyPair::derive(&random_secret()?);
    let owners = recipe.owners();
    for (index, owner) in owners.iter().enumerate() {
        let clear = plain(folder, owner.as_str());
        write(&clear, index as u64, owners.len() as u64, rows)?;
        let params = SealParams {
            chain_id: 31337,
            app: Address::ZERO,
            compose_hash: ComposeHash(B256::ZERO),
            owner: owner.clone(),
            root_epoch: 0,
            root: root.public_key().clone(),
            kind: ContentKind::Parquet,
            rows: None,
            schema: None,
            chunk_bytes: CHUNK_BYTES_DEFAULT,
        };
        let path = sealed_file(folder, owner.as_str());
        let length = fs::metadata(&clear)?.len();
        let mut go_on = |_| ControlFlow::Continue(());
        sealed::seal(&mut File::open(&clear)?, length, &mut File::create(&path)?, &params, &mut go_on)?;
        let envelope = read_header(&mut File::open(&path)?)?;
        let key = wrap_key_from_root(&root, &envelope.context(), envelope.enc())?;
        fs::write(key_file(folder, owner.as_str()), key.expose_secret())?;
    }
    Ok(())
}

/// Transactions with an account, an amount in whole units and whether it went abroad.
fn write_bank(path: &Path, index: u64, parts: u64, rows: u64) -> Outcome {
    let accounts = (rows / TRANSACTIONS).max(1);
    let names = [("account", DataType::Int64), ("amount", DataType::Int64), ("abroad", DataType::Boolean)];
    write_parquet(path, &names, index, rows / parts, |_, draws| {
        let abroad: BooleanArray = draws.iter().map(|draw| Some(draw >> 60 == 0)).collect();
        vec![
            numbers(draws, |draw| 1_000_000_000 + draw % accounts),
            numbers(draws, |draw| (draw >> 24) % 20_000),
            Arc::new(abroad),
        ]
    })
}

/// Patients with the study's columns, a row each.
fn write_hospital(path: &Path, index: u64, parts: u64, rows: u64) -> Outcome {
    let number = |name| (name, DataType::Int64);
    let names = [
        number("id"),
        number("age"),
        ("sex", DataType::Utf8),
        number("trestbps"),
        number("chol"),
        number("num"),
    ];
    write_parquet(path, &names, index, rows / parts, |first, draws| {
        let sex = |draw: &u64| if draw & 1 == 0 { "Female" } else { "Male" };
        vec![
            Arc::new(Int64Array::from_iter_values((first..).take(draws.len()).map(u64::cast_signed))),
            numbers(draws, |draw| 20 + (draw >> 1) % 60),
            Arc::new(draws.iter().map(|draw| Some(sex(draw))).collect::<StringArray>()),
            numbers(draws, |draw| 90 + (draw >> 8) % 100),
            // Some are not known, which the recipe says by 0.
            numbers(draws, |draw| if draw >> 60 == 0 { 0 } else { 120 + (draw >> 16) % 280 }),
            numbers(draws, |draw| (draw >> 32) % 5),
        ]
    })
}

fn numbers(draws: &[u64], of: impl Fn(u64) -> u64) -> ArrayRef {
    Arc::new(draws.iter().map(|draw| of(*draw).cast_signed()).collect::<Int64Array>())
}

/// Writes `rows` rows, whose columns are made of one random number each; `columns` also takes the first row's place.
fn write_parquet(
    path: &Path,
    names: &[(&str, DataType)],
    seed: u64,
    rows: u64,
    columns: impl Fn(u64, &[u64]) -> Vec<ArrayRef>,
) -> Outcome {
    let fields: Vec<Field> =
        names.iter().map(|(name, kind)| Field::new(*name, kind.clone(), false)).collect();
    let schema = Arc::new(Schema::new(fields));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, Arc::clone(&schema), Some(properties))?;
    let mut state = seed.wrapping_add(1) << 32;
    let mut first = 0;
    while first < rows {
        let count = (rows - first).min(BATCH_ROWS);
        let draws: Vec<u64> = (0..count).map(|_| splitmix(&mut state)).collect();
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns(first, &draws))?)?;
        first += count;
    }
    writer.close()?;
    Ok(())
}

/// SplitMix64: the same data every time.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn study() -> Outcome<Recipe> {
    Ok(AppCompose::parse(STUDY.as_bytes())?.recipe()?)
}

fn banks() -> Outcome<Recipe> {
    let column = |name: &str, kind: &str| json!({ "name": name, "type": kind, "nullable": false });
    let mut section = json!({
        "version": 1, "title": "Transfers of six banks", "engine": "declared",
        "datasets": { "owners": BANKS, "columns": [
            column("account", "int64"), column("amount", "int64"), column("abroad", "bool")
        ] },
        "prepare": {
            "steps": [{ "name": "accounts", "sql": SQL }], "seconds": 1800,
            "columns": [column("account", "int64"), column("total", "int64"), column("transfers", "int64"),
                        column("abroad", "int64")]
        },
        "privacy": { "unit": "account", "epsilon_per_run": "1.5", "epsilon_budget": "1.5", "delta": "0" },
        "keys": [{ "name": "transfers", "column": "transfers", "bands": [10, 15] }],
        "measures": [
            { "name": "accounts", "kind": "count", "by": ["transfers"], "round_to": "1", "epsilon": "0.5" },
            { "name": "volume", "kind": "sum", "by": ["transfers"], "column": "total", "lower": 0, "upper": 1_000_000,
              "over": "accounts", "round_to": "1", "epsilon": "0.5" },
            { "name": "abroad", "kind": "proportion", "by": ["transfers"], "over": "accounts", "round_to": "0.001",
              "where": { "column": "abroad", "op": ">", "value": 0 }, "epsilon": "0.5" }
        ],
        "minimum_group_size": 10,
        "output_schema": { "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object" }
    });
    let schema: Value = Recipe::parse(&section)?.derived_output_schema();
    section["output_schema"] = schema;
    Ok(Recipe::parse(&section)?)
}

type Compute = fn(&Recipe, Vec<Input>, Option<&Sandbox>) -> Result<Output, ComputeError>;

/// What the agent does from the wrap keys on.
fn sealed_side(folder: &Path, recipe: &Recipe, compute: Compute) -> Outcome<f64> {
    let start = Instant::now();
    let mut inputs: Vec<Input> = Vec::new();
    for owner in recipe.owners() {
        let secret = fs::read(key_file(folder, owner.as_str()))?;
        let key = SecretBytes::new(secret.try_into().map_err(|_| "no key")?);
        let mut file = File::open(sealed_file(folder, owner.as_str()))?;
        let (bytes, _) = sealed::open(&mut file, &key, LARGEST)?;
        inputs.push((owner.clone(), bytes));
    }
    let output = compute(recipe, inputs, None)?;
    compute::guard(recipe, output.value())?;
    Ok(start.elapsed().as_secs_f64())
}

/// The same on the plain files, by DataFusion alone.
#[tokio::main]
async fn plain_side(folder: &Path) -> Outcome<f64> {
    let start = Instant::now();
    let context = SessionContext::new();
    let mut union = Vec::new();
    for bank in BANKS {
        let table = bank.replace('-', "_");
        let path = plain(folder, bank);
        let path = path.to_str().ok_or("the folder's name is no text")?;
        context.register_parquet(&table, path, ParquetReadOptions::default()).await?;
        union.push(format!("SELECT account, amount, abroad FROM {table}"));
    }
    let sql = format!("WITH cohort AS ({}), persons AS ({SQL}) {MEASURES}", union.join(" UNION ALL "));
    let rows: usize = context.sql(&sql).await?.collect().await?.iter().map(RecordBatch::num_rows).sum();
    if rows == 0 { Err("no result".into()) } else { Ok(start.elapsed().as_secs_f64()) }
}
