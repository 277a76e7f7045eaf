//! What the parts of a release cost, each alone in one thread.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use alloy::primitives::B256;
use cohort_attestation::{self as attestation, Policy, dev, gpu};
use cohort_kms::{release_log::ReleaseLog, service::Request};
use cohort_protocol::{
    eip712,
    hpke::PublicKey,
    release::{Certificate, LeaseAnswer, LeaseRequest, WrapKey, WrapKeys},
    release_log::Line,
    sealed::{Envelope, wrap_key_from_root},
    sign_rpc::evidence_hash,
};
use dcap_qvl::{QuotePolicy, configs::RingConfig, verify::QuoteVerifier};

use crate::{
    load::Load,
    support::{
        CHAIN_ID,
        consortium::{receipt_key, roots},
        unix_now,
    },
};

/// CPU that this thread used so far, in seconds: `/proc/thread-self/schedstat`.
fn thread_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).expect("a number");
    nanoseconds as f64 / 1e9
}

/// Seconds of CPU for one call of `work`, repeated for a while.
fn cost(time: Duration, mut work: impl FnMut()) -> f64 {
    work();
    let (cpu, end, mut count) = (thread_cpu(), Instant::now() + time, 0u32);
    while Instant::now() < end {
        work();
        count += 1;
    }
    (thread_cpu() - cpu) / f64::from(count.max(1))
}

/// Seconds of CPU for dcap-qvl's `verify_with_policy` alone.
pub(crate) fn bare_verification(load: &Load, time: Duration) -> f64 {
    let quote = load.any_request().evidence.quote;
    let root = load.consortium.guest.platform().root_certificate_der().expect("a certificate");
    let now = unix_now();
    // What real servers have, and the KMS accepts.
    let policy =
        QuotePolicy::strict(now).allow_dynamic_platform(true).allow_cached_keys(true).allow_smt(true);
    cost(time, || {
        let verifier = QuoteVerifier::<RingConfig>::new_with_config(root.clone());
        let claims = verifier.verify_with_policy(&quote, load.collateral.clone(), now, &policy);
        std::hint::black_box(claims.expect("the quote verifies"));
    })
}

/// Prints what a release is made of. `bare`, `release` and `renewal` are seconds of CPU.
pub(crate) fn breakdown(load: &Load, log: &Path, bare: f64, release: f64, renewal: f64) {
    let time = Duration::from_millis(300);
    let (roots, now, request) = (roots(), unix_now(), load.any_request());
    let root = roots.epoch(0).expect("epoch 0");
    let body = serde_json::to_vec(&request).expect("JSON");
    let policy = Policy::production().with_root(load.consortium.trusted_root());
    let report_data = request.binding.report_data();
    let parse = cost(time, || {
        std::hint::black_box(serde_json::from_slice::<Request>(&body).expect("a request"));
    });
    let evidence = cost(time, || {
        let td = attestation::verify(&request.evidence, &policy, &report_data, now);
        std::hint::black_box(td.expect("the evidence verifies"));
    });
    let hash = cost(time, || {
        std::hint::black_box(evidence_hash(&request.binding, &request.evidence).expect("a hash"));
    });
    let envelope = Envelope::parse(request.datasets[0].envelope.as_bytes()).expect("an envelope");
    let (context, enc) = (envelope.context(), envelope.enc().to_vec());
    let derive = cost(time, || {
        std::hint::black_box(wrap_key_from_root(&root.sealing, &context, &enc).expect("a wrap key"));
    });
    let answer = cost(time, || {
        let wrap_key = hex::encode([7; 32]);
        let dataset_id = cohort_protocol::ids::DatasetId(Default::default());
        let keys = WrapKeys { keys: vec![WrapKey { dataset_id, wrap_key }], lease_seconds: 60 };
        std::hint::black_box(keys.seal(load.agent.public_key(), &request.binding).expect("sealed"));
    });
    let domain = eip712::app_domain(CHAIN_ID, load.consortium.app);
    let sign = cost(time, || {
        let hash = request.terms.compose_hash;
        let agent = request.binding.receipt_key;
        std::hint::black_box(Certificate::issue(&root.signer, &domain, agent, hash, now).expect("signed"));
    });
    let renewed =
        LeaseRequest::issue(&receipt_key(), &domain, request.run.run_id(), B256::ZERO).expect("signed");
    let renewal = renewal
        - cost(time, || {
            std::hint::black_box(renewed.signer(&domain).expect("a signer"));
            std::hint::black_box(LeaseAnswer::issue(&root.signer, &domain, &renewed, 60).expect("signed"));
        });
    let key = cost(time, || {
        std::hint::black_box(PublicKey::from_bytes(&request.encryption_key).expect("a key"));
    });
    let append = append(log);
    let line = |name: &str, seconds: f64| println!("  {name:<52} {:>6.0} us", seconds * 1e6);
    println!("a release costs {:.0} us of CPU:", release * 1e6);
    line("evidence: dcap with known signatures, event log", evidence);
    line("JSON of the request", parse);
    line("hash of the evidence", hash);
    line("chain and indexer, HTTP (a lease renewal, unsigned)", renewal);
    line("the agent's encryption key, unfolded", key);
    line("HPKE of the answer", answer);
    line("certificate", sign);
    line("release log with its flush", append);
    let parts = [evidence, parse, hash, renewal, key, answer, sign, append];
    line("rest: the challenge's HTTP, checks without signatures", release - parts.iter().sum::<f64>());
    println!("not in it:");
    line("dcap with no signature known (bare)", bare);
    line("a dataset's wrap key, the first time", derive);
    line("each GPU that a recipe requires", gpu_cost(time));
}

/// One entry of the log under concurrency: the CPU of writing it and of its part of a flush.
fn append(log: &Path) -> f64 {
    const THREADS: u64 = 16;
    const EACH: u64 = 200;
    let text = std::fs::read_to_string(log).expect("the log");
    let line: Line = serde_json::from_str(text.lines().next().expect("an entry")).expect("an entry");
    let dir = tempfile::tempdir().expect("a folder");
    let (log, _) = ReleaseLog::open(&dir.path().join("log")).expect("a log");
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (log, record) = (log.clone(), line.entry.record.clone());
            std::thread::spawn(move || {
                let before = thread_cpu();
                for time in 0..EACH {
                    log.append_blocking(time, record.clone()).expect("appended");
                }
                thread_cpu() - before
            })
        })
        .collect();
    let cpu: f64 = threads.into_iter().map(|thread| thread.join().expect("a thread ended")).sum();
    cpu / (THREADS * EACH) as f64
}

/// One report of the development platform's GPU, form to signature.
fn gpu_cost(time: Duration) -> f64 {
    let platform = dev::DevPlatform::from_seed([3; 32]).expect("a platform");
    let gpus = dev::DevGpus::of_platform(&platform, 1).expect("a GPU");
    let (nonce, now) = ([7; 32], unix_now());
    let root = gpu::GpuRoot::development(&gpus.root_certificate_der().expect("a root")).expect("its mark");
    let evidence = gpus.evidence(&nonce).expect("evidence");
    let evidence = evidence.first().expect("one GPU");
    cost(time, || {
        std::hint::black_box(gpu::verify(evidence, &root, &nonce, now).expect("the report verifies"));
    })
}
