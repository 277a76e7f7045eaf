//! Sealing and opening against `cat` and, where it is installed, `age`: all in one run, taking turns, best of each.
//!
//! `cargo run --release -p cohort-protocol --example sealed_bench [MIB] [FOLDER] [MEMORY_GIB]`: 1024 MiB on
//! `/dev/shm`, and the memory that sealing and opening 8 GiB take. One line a target, with `ok` or `MISS`.

use std::{
    error::Error,
    fs::{self, File},
    io::{self, Read},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    hpke::{KeyPair, encapsulate, random_secret},
    ids::ComposeHash,
    sealed::{
        CHUNK_BYTES_DEFAULT, ContentKind, DataKey, SealParams, SealSecrets, WRAP_LABEL, insecure_seal_with,
        open_to, read_header, seal, spool, wrap_key_from_root,
    },
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;

/// Peak resident memory of this process in MiB, as Linux counts it.
fn peak_mib() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no VmHWM")?.parse::<u64>()? / 1024)
}

/// Key file and recipient; `None` where age is not installed.
fn age(folder: &Path) -> Option<(PathBuf, String)> {
    let key = folder.join("bench.key");
    let made = Command::new("age-keygen").arg("-o").arg(&key).stderr(Stdio::null()).status().ok()?;
    let recipient = Command::new("age-keygen").arg("-y").arg(&key).output().ok()?;
    let recipient = String::from_utf8(recipient.stdout).ok()?.trim().to_owned();
    made.success().then_some((key, recipient))
}

fn run(command: &mut Command) -> Outcome {
    if command.status()?.success() { Ok(()) } else { Err("a peer failed".into()) }
}

fn params(root: &KeyPair) -> Outcome<SealParams> {
    Ok(SealParams {
        chain_id: 31337,
        app: Address::ZERO,
        compose_hash: ComposeHash(B256::ZERO),
        owner: "hospital-A".parse()?,
        root_epoch: 0,
        root: root.public_key().clone(),
        kind: ContentKind::Bytes,
        rows: None,
        schema: None,
        chunk_bytes: CHUNK_BYTES_DEFAULT,
    })
}

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let mib: u64 = args.next().map_or(Ok(1024), |text| text.parse())?;
    let parent = args.next().unwrap_or_else(|| "/dev/shm".into());
    let memory_gib: u64 = args.next().map_or(Ok(8), |text| text.parse())?;
    memory(memory_gib << 30)?;
    let folder = Path::new(&parent).join(format!("cohort-bench-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let result = speed(&folder, mib << 20);
    fs::remove_dir_all(&folder)?;
    result
}

/// Memory over the process's start, against 64 MiB: sealing a file of known length, a stream of unknown length through a
/// working file, and opening.
fn memory(bytes: u64) -> Outcome {
    let root = KeyPair::derive(&random_secret()?);
    let params = params(&root)?;
    let before = peak_mib()?;
    let over = |name: &str| -> Outcome {
        let mib = peak_mib()? - before;
        println!("{name}: {mib} MiB over the start, {} MiB of data", bytes >> 20);
        at_most(name, mib as f64 / 64.0, 1.0);
        Ok(())
    };
    let zeros = || io::repeat(0).take(bytes);
    seal(&mut zeros(), bytes, &mut io::sink(), &params, &mut go_on)?;
    over("seal_memory")?;
    let file = tempfile::tempfile_in(".")?;
    let spooled = spool(&mut zeros(), file, CHUNK_BYTES_DEFAULT, DataKey::fresh()?, &mut go_on)?;
    spooled.seal(&mut io::sink(), &params, &mut go_on)?;
    over("seal_stream_memory")?;
    open_through_pipe(zeros(), bytes, &root, &params)?;
    over("open_memory")
}

/// Opens while another thread seals: so large a file need not be stored.
fn open_through_pipe(
    mut input: impl Read + Send,
    bytes: u64,
    root: &KeyPair,
    params: &SealParams,
) -> Outcome {
    let (enc, wrap_key) = encapsulate(root.public_key(), &params.context()?.info(), WRAP_LABEL)?;
    let secrets = SealSecrets::insecure_fixed(enc, wrap_key.clone(), random_secret()?);
    let (mut reader, mut writer) = io::pipe()?;
    thread::scope(|scope| {
        let sealing = scope
            .spawn(move || insecure_seal_with(&mut input, bytes, &mut writer, params, &secrets, &mut go_on));
        open_to(&mut reader, &wrap_key, &mut io::sink())?;
        sealing.join().map_err(|_| "sealing panicked")??;
        Ok(())
    })
}

fn go_on(_done: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn at_least(name: &str, ratio: f64, target: f64) {
    println!(
        "bench {name} ratio={ratio:.2} target=>={target} {}",
        if ratio >= target { "ok" } else { "MISS" }
    );
}

fn at_most(name: &str, ratio: f64, target: f64) {
    println!(
        "bench {name} ratio={ratio:.2} target=<={target} {}",
        if ratio <= target { "ok" } else { "MISS" }
    );
}

/// Processor seconds of this process and its ended children. Wall time is the target; on a machine with other work
/// the processor time tells more.
fn cpu_seconds() -> Outcome<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("no /proc/self/stat")?.1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(4).map(|field| field.parse().unwrap_or(0)).sum();
    Ok(ticks as f64 / 100.0)
}

struct Contest<'c> {
    name: &'static str,
    work: Box<dyn FnMut() -> Outcome + 'c>,
    best: Duration,
    cpu: f64,
}

fn contest<'c>(name: &'static str, work: impl FnMut() -> Outcome + 'c) -> Contest<'c> {
    Contest { name, work: Box::new(work), best: Duration::MAX, cpu: f64::MAX }
}

fn speed(folder: &Path, bytes: u64) -> Outcome {
    let path = |name: &str| folder.join(name);
    let (input, sealed) = (&path("in"), &path("sealed.tar"));
    io::copy(&mut File::open("/dev/urandom")?.take(bytes), &mut File::create(input)?)?;
    let peers = age(folder);
    let root = KeyPair::derive(&random_secret()?);
    let params = params(&root)?;
    let seal_once = || -> Outcome {
        seal(&mut File::open(input)?, bytes, &mut fresh(sealed)?, &params, &mut go_on)?;
        Ok(())
    };
    seal_once()?;
    let key = {
        let envelope = read_header(&mut File::open(sealed)?)?;
        wrap_key_from_root(&root, &envelope.context(), envelope.enc())?
    };
    let mut contests = vec![
        contest("cat", || run(Command::new("cat").arg(input).stdout(Stdio::from(fresh(&path("out"))?)))),
        contest("seal", || {
            seal(&mut File::open(input)?, bytes, &mut fresh(&path("out"))?, &params, &mut go_on)?;
            Ok(())
        }),
        contest("open", || {
            open_to(&mut File::open(sealed)?, &key, &mut fresh(&path("out"))?)?;
            Ok(())
        }),
    ];
    if let Some((key, recipient)) = &peers {
        run(Command::new("age").args(["-r", recipient, "-o"]).arg(path("age")).arg(input))?;
        contests.push(contest("age", move || {
            run(Command::new("age").args(["-r", recipient, "-o"]).arg(path("out")).arg(input))
        }));
        contests.push(contest("age -d", move || {
            run(Command::new("age").arg("-d").arg("-i").arg(key).arg("-o").arg(path("out")).arg(path("age")))
        }));
    }
    for _ in 0..ROUNDS {
        for contest in &mut contests {
            let _ = fs::remove_file(path("out"));
            let (start, cpu) = (Instant::now(), cpu_seconds()?);
            (contest.work)()?;
            contest.best = contest.best.min(start.elapsed());
            contest.cpu = contest.cpu.min(cpu_seconds()? - cpu);
        }
    }
    let load = fs::read_to_string("/proc/loadavg")?;
    println!("{} MiB, best of {ROUNDS}, load average {}", bytes >> 20, load.split(' ').next().unwrap_or("?"));
    for contest in &contests {
        let seconds = contest.best.as_secs_f64();
        let rate = bytes as f64 / seconds / 1e9;
        println!("{:<8} {seconds:>7.3} s {rate:>6.2} GB/s, processor {:>5.2} s", contest.name, contest.cpu);
    }
    report(&contests);
    Ok(())
}

fn report(contests: &[Contest<'_>]) {
    let best = |name: &str| contests.iter().find(|c| c.name == name).map(|c| c.best.as_secs_f64());
    for (name, peer, ours, target) in [
        ("seal_vs_cat", "cat", "seal", 1.0),
        ("open_vs_cat", "cat", "open", 1.0),
        ("seal_vs_age", "age", "seal", 2.0),
        ("open_vs_age", "age -d", "open", 2.0),
    ] {
        match best(peer).zip(best(ours)) {
            Some((peer, ours)) => at_least(name, peer / ours, target),
            None => println!("bench {name} skipped: age is not installed (Debian: apt-get install age)"),
        }
    }
}

/// A new, empty file. Removing the old one is nobody's time, so it is done before the clock starts.
fn fresh(path: &Path) -> Outcome<File> {
    Ok(File::create_new(path)?)
}
