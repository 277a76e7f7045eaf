//! Every fuzz target over its committed seeds and some thousand changed ones: seconds, the same bytes each time.
//! `make fuzz` searches by coverage.

#[path = "../../fuzz/fuzz_targets/bodies.rs"]
mod bodies;
#[cfg(feature = "dev")]
#[path = "../../fuzz/fuzz_targets/evidence.rs"]
mod evidence;

use std::{fs, path::Path};

/// xorshift64: the smoke needs no better.
struct Changes(u64);

impl Changes {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    /// Flips, overwrites, removes, repeats or cuts some bytes.
    fn of(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(3) {
            let (at, length) = (self.below(bytes.len()), 1 + self.below(8));
            let end = bytes.len().min(at + length);
            match self.below(5) {
                0 if at < end => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at..end].iter_mut().for_each(|byte| *byte = [0, 0xff, b'9', b'"'][length % 4]),
                2 => drop(bytes.drain(at..end)),
                3 => drop(bytes.splice(at..at, seed[at.min(seed.len())..end.min(seed.len())].to_vec())),
                _ => bytes.truncate(at),
            }
        }
        bytes
    }
}

fn seeds(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let small = |bytes: &Vec<u8>| bytes.len() < 1 << 16;
    paths.iter().map(|path| fs::read(path).unwrap()).filter(small).collect()
}

fn smoke(seeds: &[Vec<u8>], rounds: usize, target: impl Fn(&[u8])) {
    assert!(!seeds.is_empty());
    let mut changes = Changes(0x2545_f491_4f6c_dd1d);
    for seed in seeds {
        target(seed);
        for _ in 0..rounds {
            target(&changes.of(seed));
        }
    }
}

#[test]
fn sealed_files() {
    let files = seeds("test/vectors/sealed-dataset");
    smoke(&files, 20, bodies::archive);
    smoke(&files, 2, bodies::opened);
}

#[test]
fn json_formats() {
    smoke(&seeds("fuzz/seeds/envelope"), 400, bodies::envelope);
    smoke(&seeds("fuzz/seeds/recovery"), 1000, bodies::recovery);
    smoke(&seeds("fuzz/seeds/compose"), 200, bodies::compose);
    smoke(&seeds("fuzz/seeds/root"), 200, bodies::root);
}

#[test]
fn tables() {
    cohort_recognise::silence_decoder();
    smoke(&seeds("fuzz/seeds/table"), 1000, bodies::table);
}

/// The committed seeds are what the development platform makes; `COHORT_UPDATE=1` writes them anew.
#[cfg(feature = "dev")]
#[test]
fn evidence_of_machines() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (name, seed) in evidence::seeds() {
        let path = folder.join(name);
        if std::env::var_os("COHORT_UPDATE").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &seed).unwrap();
        }
        assert!(fs::read(&path).unwrap() == seed, "{name} is out of date: COHORT_UPDATE=1");
    }
    smoke(&seeds("fuzz/seeds/quote"), 300, evidence::quote);
    smoke(&seeds("fuzz/seeds/event_log"), 400, evidence::log);
    smoke(&seeds("fuzz/seeds/collateral"), 300, evidence::collateral);
    smoke(&seeds("fuzz/seeds/gpu_report"), 300, evidence::gpu_report);
    smoke(&seeds("fuzz/seeds/gpu_collected"), 300, evidence::gpu_collected);
    smoke(&seeds("fuzz/seeds/rim"), 200, evidence::manifest);
}
