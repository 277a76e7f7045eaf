//! Agents that ask.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use alloy::primitives::B256;
use cohort_attestation::Collateral;
use cohort_kms::service::Request;
use cohort_protocol::{
    eip712,
    hpke::KeyPair,
    loss::Epsilon,
    release::{Challenge, LeaseRequest, Refusal},
    terms::{SignedRunRequest, Terms},
};

use crate::support::{
    CHAIN_ID, binding,
    consortium::{CONFIRMATIONS, Consortium, receipt_key},
    request, unix_now,
};

/// Runs that are asked about in turn.
const RUNS: u8 = 32;
/// Addresses that the load comes from: each may have 16 releases in work.
const ADDRESSES: u8 = 8;
/// Garbage requests in work at once: more than the KMS has places for the addresses that they come from.
const FLOOD_AT_ONCE: usize = 64;

/// What is approved and opened.
pub(crate) struct Prepared {
    terms: Terms,
    runs: Vec<SignedRunRequest>,
}

/// Lists, approves, registers and opens everything, deep enough.
pub(crate) async fn prepare(consortium: &Consortium) -> Prepared {
    consortium.register_epoch(0).await;
    consortium.list_all().await;
    consortium.register_dataset().await;
    let each = Epsilon(1_000_000);
    let terms = Terms {
        epsilon_per_run: each,
        epsilon_budget: Epsilon(each.0 * u64::from(RUNS)),
        ..consortium.terms(0)
    };
    consortium.approve(0, &terms).await;
    consortium.approve(1, &terms).await;
    let runs: Vec<_> = (1..=RUNS).map(|n| consortium.run_of(&terms, B256::repeat_byte(n))).collect();
    for run in &runs {
        consortium.open_run(&terms, run).await;
    }
    consortium.anvil.mine(CONFIRMATIONS).await;
    Prepared { terms, runs }
}

/// How a load went.
pub(crate) struct Measured {
    pub(crate) done: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Measured {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
        };
        Self { done: times.len() as u64, p50: at(50), p99: at(99) }
    }
}

/// A flood, and what became of the genuine requests in it.
pub(crate) struct Flooded {
    pub(crate) refused: u64,
    pub(crate) codes: BTreeMap<String, u64>,
    pub(crate) asked: u64,
    pub(crate) genuine: Measured,
}

/// Agents with one encryption and one receipt key.
#[derive(Clone)]
pub(crate) struct Load(Arc<Inner>);

pub(crate) struct Inner {
    kms: reqwest::Url,
    clients: Vec<reqwest::Client>,
    pub(crate) consortium: Consortium,
    pub(crate) agent: KeyPair,
    prepared: Prepared,
    pub(crate) collateral: Collateral,
}

impl std::ops::Deref for Load {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Load {
    pub(crate) fn new(kms: reqwest::Url, consortium: Consortium, agent: KeyPair, prepared: Prepared) -> Self {
        let client = |last| {
            let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
            reqwest::Client::builder().local_address(from).tcp_nodelay(true).build().expect("a client")
        };
        let collateral = consortium.guest.platform().collateral(unix_now()).expect("collateral");
        let clients = (1..=ADDRESSES).map(client).collect();
        Self(Arc::new(Inner { kms, clients, consortium, agent, prepared, collateral }))
    }

    fn client(&self, worker: usize) -> &reqwest::Client {
        &self.clients[worker % self.clients.len()]
    }

    fn url(&self, path: &str) -> reqwest::Url {
        self.kms.join(path).expect("a URL")
    }

    async fn challenge(&self, client: &reqwest::Client) -> Option<Challenge> {
        client.post(self.url("v1/challenge")).send().await.ok()?.json().await.ok()
    }

    /// The run of a worker's turn.
    fn run(&self, turn: usize) -> &SignedRunRequest {
        &self.prepared.runs[turn % self.prepared.runs.len()]
    }

    /// A genuine request for a challenge.
    pub(crate) fn request(&self, challenge: &Challenge, turn: usize) -> Request {
        let run = self.run(turn);
        let mut binding = binding(challenge, self.consortium.app, run.run_id(), &self.agent);
        binding.receipt_key = receipt_key().address();
        let evidence = self.consortium.guest.evidence(&binding.report_data()).expect("evidence");
        let evidence = evidence.with_collateral(self.collateral.clone());
        let datasets = vec![self.consortium.dataset.clone()];
        request(self.prepared.terms.clone(), run.clone(), binding, &self.agent, datasets, evidence)
    }

    /// A request for a challenge that the KMS did not give: for what is measured without it.
    pub(crate) fn any_request(&self) -> Request {
        let root = crate::support::consortium::roots();
        let kms_root = root.epoch(0).expect("epoch 0").address();
        self.request(&Challenge { challenge: B256::ZERO, expires_at: 0, kms_root }, 0)
    }

    async fn send(&self, client: &reqwest::Client, request: &Request) -> Result<(), String> {
        let response = client.post(self.url("v1/release")).json(request).send().await;
        let response = response.map_err(|error| error.to_string())?;
        if response.status() == 200 {
            response.bytes().await.map_err(|error| error.to_string())?;
            return Ok(());
        }
        Err(response.json::<Refusal>().await.map_or_else(|error| error.to_string(), |refusal| refusal.code))
    }

    /// Waits until the indexer has seen everything.
    pub(crate) async fn wait_until_allowed(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let last = match self.challenge(self.client(0)).await {
                Some(challenge) => {
                    self.send(self.client(0), &self.request(&challenge, usize::from(RUNS) - 1)).await
                }
                None => Err("no challenge".to_owned()),
            };
            let Err(code) = last else { return };
            assert!(Instant::now() < deadline, "the KMS does not release: {code}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Runs `work` on so many workers for a time; each call of it says how long it took.
    async fn each<F>(
        &self,
        at_once: usize,
        time: Duration,
        work: impl Fn(Self, usize, usize) -> F,
    ) -> Measured
    where
        F: Future<Output = Duration> + Send + 'static,
    {
        let end = Instant::now() + time;
        let mut workers = tokio::task::JoinSet::new();
        let mut turns = 0;
        let mut times = Vec::new();
        for worker in 0..at_once {
            workers.spawn(tag(worker, work(self.clone(), worker, turns)));
            turns += 1;
        }
        while let Some(done) = workers.join_next().await {
            let (worker, time) = done.expect("a worker ended");
            times.push(time);
            if Instant::now() < end {
                workers.spawn(tag(worker, work(self.clone(), worker, turns)));
                turns += 1;
            }
        }
        Measured::of(times)
    }

    /// Releases, each with a challenge and a quote of its own; only the release is timed.
    pub(crate) async fn releases(&self, at_once: usize, time: Duration) -> Measured {
        self.each(at_once, time, async |load: Self, worker, turn| {
            let client = load.client(worker);
            let challenge = load.challenge(client).await.expect("a challenge");
            let request = load.request(&challenge, turn);
            let asked = Instant::now();
            load.send(client, &request).await.expect("a release");
            asked.elapsed()
        })
        .await
    }

    /// Renewals of leases: the decision alone, without quote, log and keys.
    pub(crate) async fn renewals(&self, at_once: usize, time: Duration) -> Measured {
        let nonces = Arc::new(AtomicU64::new(0));
        self.each(at_once, time, move |load: Self, worker, turn| {
            let nonces = nonces.clone();
            async move {
                let nonce = B256::left_padding_from(&nonces.fetch_add(1, Ordering::Relaxed).to_be_bytes());
                let domain = eip712::app_domain(CHAIN_ID, load.consortium.app);
                let run = load.run(turn).run_id();
                let request = LeaseRequest::issue(&receipt_key(), &domain, run, nonce).expect("signed");
                let asked = Instant::now();
                let response = load.client(worker).post(load.url("v1/lease")).json(&request).send().await;
                let response = response.expect("an answer");
                assert_eq!(response.status(), 200, "{:?}", response.text().await);
                asked.elapsed()
            }
        })
        .await
    }

    /// Asks for so many challenges.
    pub(crate) async fn challenges(&self, count: u64) {
        let left = Arc::new(AtomicU64::new(count));
        let workers: Vec<_> = (0..16)
            .map(|worker| {
                let (load, left) = (self.clone(), left.clone());
                tokio::spawn(async move {
                    let take = |left: u64| left.checked_sub(1);
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                        load.challenge(load.client(worker)).await.expect("a challenge");
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.await.expect("a worker ended");
        }
    }

    /// Garbage from three addresses, each quote with a good challenge and a broken signature, which costs the KMS the
    /// most; genuine requests from others. A genuine agent that is told `busy` asks again, for at most five seconds.
    pub(crate) async fn under_flood(&self, time: Duration) -> Flooded {
        let (load, end) = (self.clone(), Instant::now() + time);
        let garbage: Vec<_> =
            (0..FLOOD_AT_ONCE).map(|worker| tokio::spawn(flood(load.clone(), worker % 3, end))).collect();
        let asked = Arc::new(AtomicU64::new(0));
        let released = Arc::new(AtomicU64::new(0));
        let counters = (asked.clone(), released.clone());
        let genuine = self
            .each(4, time, move |load: Self, worker, turn| {
                let (asked, released) = counters.clone();
                async move {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let (client, started) = (load.client(4 + worker % 4), Instant::now());
                    while started.elapsed() < Duration::from_secs(5) {
                        if let Some(challenge) = load.challenge(client).await
                            && load.send(client, &load.request(&challenge, turn)).await.is_ok()
                        {
                            released.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    started.elapsed()
                }
            })
            .await;
        let mut codes = BTreeMap::new();
        for worker in garbage {
            for (code, count) in worker.await.expect("a worker ended") {
                *codes.entry(code).or_insert(0) += count;
            }
        }
        let genuine = Measured { done: released.load(Ordering::Relaxed), ..genuine };
        Flooded { refused: codes.values().sum(), codes, asked: asked.load(Ordering::Relaxed), genuine }
    }
}

async fn tag<F: Future<Output = Duration>>(worker: usize, work: F) -> (usize, Duration) {
    (worker, work.await)
}

async fn flood(load: Load, address: usize, end: Instant) -> BTreeMap<String, u64> {
    let mut codes = BTreeMap::new();
    let client = load.client(address);
    while Instant::now() < end {
        let Some(challenge) = load.challenge(client).await else { continue };
        let mut request = load.request(&challenge, 0);
        // The quote's own signature: 64 bytes from byte 636 on, behind header, body and length.
        request.evidence.quote[640] ^= 1;
        let code = load.send(client, &request).await.expect_err("garbage was released");
        *codes.entry(code).or_insert(0) += 1;
    }
    codes
}
