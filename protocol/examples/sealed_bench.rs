//! Sealing and opening against a plain copy and, where it is installed, `age`: all in one run, best of three.
//!
//! `cargo run --release -p cohort-protocol --example sealed_bench [MIB] [FOLDER]`; 1024 MiB on `/dev/shm` by default.

use std::{
    error::Error,
    fs::{self, File},
    io::{Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256};
use cohort_protocol::{
    hpke::{KeyPair, random_secret},
    ids::ComposeHash,
    sealed::{CHUNK_BYTES_DEFAULT, ContentKind, SealParams, open_to, read_header, seal, wrap_key_from_root},
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn best(name: &str, bytes: u64, mut work: impl FnMut() -> Outcome) -> Outcome<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed());
    }
    let rate = bytes as f64 / best.as_secs_f64() / 1e9;
    println!("{name:<22} {:>7.3} s  {rate:>6.2} GB/s", best.as_secs_f64());
    Ok(best)
}

fn copy(from: &Path, to: &Path) -> Outcome {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut buf = vec![0; 1 << 17];
    loop {
        match from.read(&mut buf)? {
            0 => return Ok(()),
            count => to.write_all(buf.get(..count).unwrap_or_default())?,
        }
    }
}

/// Peak resident memory of this process in MiB, as Linux counts it.
fn peak_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

fn age(folder: &Path) -> Option<(PathBuf, String)> {
    let key = folder.join("bench.key");
    let made = Command::new("age-keygen").arg("-o").arg(&key).stderr(Stdio::null()).status().ok()?;
    let recipient = Command::new("age-keygen").arg("-y").arg(&key).output().ok()?;
    let recipient = String::from_utf8(recipient.stdout).ok()?.trim().to_owned();
    made.success().then_some((key, recipient))
}

fn run(command: &mut Command) -> Outcome {
    if command.status()?.success() { Ok(()) } else { Err("age failed".into()) }
}

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let mib: u64 = args.next().map_or(Ok(1024), |text| text.parse())?;
    let parent = args.next().unwrap_or_else(|| "/dev/shm".into());
    let folder = Path::new(&parent).join(format!("cohort-bench-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let result = bench(&folder, mib << 20);
    fs::remove_dir_all(&folder)?;
    result
}

fn bench(folder: &Path, bytes: u64) -> Outcome {
    let (input, sealed, output) = (folder.join("in"), folder.join("sealed.tar"), folder.join("out"));
    let mut random = File::open("/dev/urandom")?.take(bytes);
    std::io::copy(&mut random, &mut File::create(&input)?)?;
    let peers = age(folder);

    let before = peak_mib();
    let root = KeyPair::derive(&random_secret()?);
    let params = SealParams {
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
    };
    let copied = best("copy", bytes, || copy(&input, &output))?;
    let seal_time = best("cohort seal", bytes, || {
        let go_on = &mut |_| ControlFlow::Continue(());
        seal(&mut File::open(&input)?, bytes, &mut File::create(&sealed)?, &params, go_on)?;
        Ok(())
    })?;
    let envelope = read_header(&mut File::open(&sealed)?)?;
    let key = wrap_key_from_root(&root, &envelope.context(), envelope.enc())?;
    let open_time = best("open", bytes, || {
        open_to(&mut File::open(&sealed)?, &key, &mut File::create(&output)?)?;
        Ok(())
    })?;
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    println!("seal / copy            {:>7.2}", ratio(seal_time, copied));
    println!("open / copy            {:>7.2}", ratio(open_time, copied));
    if let (Some(before), Some(after)) = (before, peak_mib()) {
        println!("peak memory            {:>7} MiB over the start", after.saturating_sub(before));
    }
    fs::remove_file(&sealed)?;
    let Some((key, recipient)) = peers else {
        println!("age is not installed: no comparison");
        return Ok(());
    };
    let age_file = folder.join("age");
    let encrypted = best("age -r", bytes, || {
        run(Command::new("age").args(["-r", &recipient, "-o"]).arg(&age_file).arg(&input))
    })?;
    let decrypted = best("age -d", bytes, || {
        run(Command::new("age").arg("-d").arg("-i").arg(&key).arg("-o").arg(&output).arg(&age_file))
    })?;
    println!("age / seal             {:>7.2}", ratio(encrypted, seal_time));
    println!("age / open             {:>7.2}", ratio(decrypted, open_time));
    Ok(())
}
