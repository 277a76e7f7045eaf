//! Collateral of platform families: fetched from a PCCS, or imported from files, kept while it is valid, and never
//! given out outside its window.
//!
//! It needs no trust: whoever verifies a quote with it checks every signature and date in it. What is checked here is
//! that it is the family's, and valid now.
//!
//! Anonymous callers name families, and the PCCS is asked one question at a time. So that nobody who names false ones
//! can keep a new family's collateral from others, each address has one place in the line, and failures that are
//! remembered make room for later ones.

use std::{
    collections::{BTreeMap, HashMap, hash_map},
    path::{Path, PathBuf},
    sync::{Mutex as StdMutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cohort_attestation::{
    Collateral, Refusal,
    collateral::{self, Family, Window},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Mutex;

use crate::limits::Peer;

/// Longest answer of a PCCS, in bytes; Intel's are below 20,000.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Longest time for one answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Families remembered: there are a few dozen. Beyond, the oldest failure is forgotten.
const FAMILIES_MAX: usize = 256;
/// After a failure the PCCS is left alone for this long.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(30);
/// Collateral is fetched anew when this part of its window is left: `1 / n`.
const REFRESH_PART: u64 = 10;

/// Why there is no collateral.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollateralError {
    /// Its fetch would be this address's second at once.
    #[error(
        "the collateral of family {family} is not fetched while that of {other} is, for the same address"
    )]
    Waiting {
        /// Which family.
        family: Family,
        /// What is being fetched.
        other: Family,
    },
    /// Neither imported nor fetchable.
    #[error("there is no collateral of family {0}")]
    Unknown(Family),
    /// What there is has expired, or is not valid yet.
    #[error("the collateral of family {family} is valid from {} to {}, not at {now}", window.valid_from, window.expires_at)]
    OutsideWindow {
        /// Which family.
        family: Family,
        /// Its window.
        window: Window,
        /// Unix seconds.
        now: u64,
    },
    /// The PCCS did not answer as one does.
    #[error("the PCCS gives no collateral of family {family}: {reason}")]
    Fetch {
        /// Which family.
        family: Family,
        /// What went wrong.
        reason: String,
    },
    /// The quote does not say of which family it is.
    #[error("the quote names no platform family")]
    Quote(#[source] Refusal),
    /// A file cannot be imported.
    #[error("the collateral file {path} cannot be used: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The cache.
pub struct CollateralCache {
    files: Vec<PathBuf>,
    pccs: Option<Pccs>,
    known: Mutex<BTreeMap<Family, Known>>,
    /// The PCCS is asked one question at a time, first come, first served.
    asking: Mutex<()>,
    line: Line,
}

/// For which family each address has something fetched, and how many of its requests wait for that.
#[derive(Default)]
struct Line(StdMutex<HashMap<Peer, (Family, usize)>>);

/// A request's place in the line; dropping it gives it back.
struct Place<'a> {
    line: &'a Line,
    peer: Option<Peer>,
}

impl Line {
    /// The KMS itself has always one.
    fn enter(&self, peer: Option<Peer>, family: Family) -> Result<Place<'_>, CollateralError> {
        if let Some(peer) = peer {
            let mut line = self.all();
            let (other, count) = line.entry(peer).or_insert((family, 0));
            if *other != family {
                return Err(CollateralError::Waiting { family, other: *other });
            }
            *count += 1;
        }
        Ok(Place { line: self, peer })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Peer, (Family, usize)>> {
        // No user code runs while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(peer) = self.peer else { return };
        if let hash_map::Entry::Occupied(mut entry) = self.line.all().entry(peer) {
            entry.get_mut().1 -= 1;
            if entry.get().1 == 0 {
                entry.remove();
            }
        }
    }
}

#[derive(Default, Clone)]
struct Known {
    held: Option<(Collateral, Window)>,
    failed: Option<(Instant, CollateralError)>,
}

impl CollateralCache {
    /// Imports `files`, now as well as whenever something is missing or about to expire, and fetches from the PCCS at
    /// `base`, if any.
    pub fn new(files: Vec<PathBuf>, base: Option<reqwest::Url>) -> Result<Self, reqwest::Error> {
        Ok(Self {
            files,
            pccs: base.map(Pccs::new).transpose()?,
            known: Mutex::default(),
            asking: Mutex::default(),
            line: Line::default(),
        })
    }

    /// Takes what a file holds: `QuoteCollateralV3` as JSON. Expired collateral is taken too, and never given out.
    pub async fn import(&self, path: &Path) -> Result<Family, CollateralError> {
        let refused = |reason: String| CollateralError::File { path: path.to_owned(), reason };
        let bytes = tokio::fs::read(path).await.map_err(|error| refused(error.to_string()))?;
        let collateral: Collateral =
            serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))?;
        let family = collateral::family_of(&collateral).map_err(|error| refused(error.to_string()))?;
        let window = collateral::window(&collateral).map_err(|error| refused(error.to_string()))?;
        self.keep(family, collateral, window).await;
        Ok(family)
    }

    async fn keep(&self, family: Family, mut collateral: Collateral, window: Window) {
        collateral.pck_certificate_chain = None; // of one machine, and this serves many
        let mut known = self.known.lock().await;
        let entry = known.entry(family).or_default();
        let is_newer = entry.held.as_ref().is_none_or(|(_, held)| held.expires_at <= window.expires_at);
        if is_newer {
            *entry = Known { held: Some((collateral, window)), failed: None };
        }
    }

    /// The collateral of a family, valid at `now` (Unix seconds), for this address or, without one, for the KMS itself.
    pub async fn of(
        &self,
        family: Family,
        now: u64,
        peer: Option<Peer>,
    ) -> Result<Collateral, CollateralError> {
        let mut entry = self.known(family).await;
        if !entry.is_fresh(now) {
            for path in &self.files {
                if let Err(error) = self.import(path).await {
                    tracing::warn!(target: "kms", error = &error as &dyn std::error::Error, "not imported");
                }
            }
            entry = self.known(family).await;
        }
        let is_fresh = entry.is_fresh(now);
        let held = entry.held.filter(|(_, window)| window.contains(now) || self.pccs.is_none());
        if let Some(pccs) = &self.pccs
            && !is_fresh
        {
            match self.fetch(pccs, family, now, peer).await {
                Ok(collateral) => return Ok(collateral),
                Err(error) if held.is_none() => return Err(error),
                Err(error) => {
                    tracing::warn!(target: "kms", error = &error as &dyn std::error::Error, "collateral not renewed");
                }
            }
        }
        match held {
            Some((collateral, window)) if window.contains(now) => Ok(collateral),
            Some((_, window)) => Err(CollateralError::OutsideWindow { family, window, now }),
            None => Err(CollateralError::Unknown(family)),
        }
    }

    /// The same for the family of a quote.
    pub async fn of_quote(
        &self,
        quote: &[u8],
        now: u64,
        peer: Option<Peer>,
    ) -> Result<Collateral, CollateralError> {
        self.of(collateral::family_of_quote(quote).map_err(CollateralError::Quote)?, now, peer).await
    }

    async fn known(&self, family: Family) -> Known {
        self.known.lock().await.get(&family).cloned().unwrap_or_default()
    }

    /// Asks the PCCS, unless it has just answered somebody else, failed lately, or there are too many families.
    async fn fetch(
        &self,
        pccs: &Pccs,
        family: Family,
        now: u64,
        peer: Option<Peer>,
    ) -> Result<Collateral, CollateralError> {
        let _place = self.line.enter(peer, family)?;
        let _turn = self.asking.lock().await;
        let entry = self.known(family).await;
        if entry.has_failed_lately() {
            return Err(entry.failed.map_or(CollateralError::Unknown(family), |(_, error)| error));
        }
        if let Some((collateral, _)) = entry.held.as_ref().filter(|_| entry.is_fresh(now)) {
            return Ok(collateral.clone());
        }
        if !self.has_room_for(family).await {
            return Err(CollateralError::Unknown(family));
        }
        let failure = match pccs.fetch(family).await {
            Ok(collateral) => match valid(family, &collateral, now) {
                Ok(window) => {
                    self.keep(family, collateral.clone(), window).await;
                    return Ok(collateral);
                }
                Err(error) => error,
            },
            Err(reason) => CollateralError::Fetch { family, reason },
        };
        self.known.lock().await.entry(family).or_default().failed = Some((Instant::now(), failure.clone()));
        Err(failure)
    }

    /// Forgets the oldest failure, if that is needed.
    async fn has_room_for(&self, family: Family) -> bool {
        let mut known = self.known.lock().await;
        if known.len() >= FAMILIES_MAX && !known.contains_key(&family) {
            let failure = |(family, entry): (&Family, &Known)| {
                let (at, _) = entry.failed.as_ref().filter(|_| entry.held.is_none())?;
                Some((*at, *family))
            };
            if let Some((_, oldest)) = known.iter().filter_map(failure).min() {
                known.remove(&oldest);
            }
        }
        known.len() < FAMILIES_MAX || known.contains_key(&family)
    }
}

impl Known {
    fn has_failed_lately(&self) -> bool {
        self.failed.as_ref().is_some_and(|(at, _)| at.elapsed() < FAILURE_REMEMBERED)
    }

    /// Valid now, and for a while.
    fn is_fresh(&self, now: u64) -> bool {
        self.held.as_ref().is_some_and(|(_, window)| window.contains(now) && !is_ending(window, now))
    }
}

fn is_ending(window: &Window, now: u64) -> bool {
    let whole = window.expires_at.saturating_sub(window.valid_from);
    window.expires_at.saturating_sub(now) < whole / REFRESH_PART
}

/// A family by its parts in a path: `b0c06f000000`, `platform` or `processor`.
pub fn family_named(fmspc: &str, ca: &str) -> Option<Family> {
    let mut bytes = [0; 6];
    hex::decode_to_slice(fmspc, &mut bytes).ok()?;
    let by_platform_ca = match ca {
        "platform" => true,
        "processor" => false,
        _ => return None,
    };
    Some(Family { fmspc: bytes, by_platform_ca })
}

/// It is the family's that was asked for, and valid now.
fn valid(family: Family, collateral: &Collateral, now: u64) -> Result<Window, CollateralError> {
    let fetch = |reason: String| CollateralError::Fetch { family, reason };
    let have = collateral::family_of(collateral).map_err(|error| fetch(error.to_string()))?;
    if have != family {
        return Err(fetch(format!("it answered with that of {have}")));
    }
    let window = collateral::window(collateral).map_err(|error| fetch(error.to_string()))?;
    if window.contains(now) {
        Ok(window)
    } else {
        Err(CollateralError::OutsideWindow { family, window, now })
    }
}

/// A provisioning certificate caching service, API version 4 (Intel's PCS and PCCS).
struct Pccs {
    base: reqwest::Url,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct TcbAnswer {
    #[serde(rename = "tcbInfo")]
    info: Box<RawValue>,
    signature: String,
}

#[derive(Deserialize)]
struct QeAnswer {
    #[serde(rename = "enclaveIdentity")]
    identity: Box<RawValue>,
    signature: String,
}

impl Pccs {
    fn new(mut base: reqwest::Url) -> Result<Self, reqwest::Error> {
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let http = crate::client::client(ANSWER_TIME)?;
        Ok(Self { base, http })
    }

    async fn fetch(&self, family: Family) -> Result<Collateral, String> {
        let (fmspc, ca) = (hex::encode_upper(family.fmspc), family.ca());
        let tcb = format!("tdx/certification/v4/tcb?fmspc={fmspc}");
        let crl = format!("sgx/certification/v4/pckcrl?ca={ca}&encoding=der");
        let (tcb, crl) = (self.get(&tcb), self.get(&crl));
        let qe = self.get("tdx/certification/v4/qe/identity");
        let root = self.get("sgx/certification/v4/rootcacrl");
        let (tcb, qe, crl, root) = tokio::try_join!(tcb, qe, crl, root)?;
        let tcb_info: TcbAnswer = parse(&tcb.body, "tcb")?;
        let qe_identity: QeAnswer = parse(&qe.body, "qe/identity")?;
        Ok(Collateral {
            pck_crl_issuer_chain: crl.chain(&["SGX-PCK-CRL-Issuer-Chain"])?,
            root_ca_crl: der_or_hex(&root.body)?,
            pck_crl: der_or_hex(&crl.body)?,
            tcb_info_issuer_chain: tcb.chain(&["TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"])?,
            // Exactly the bytes that were signed.
            tcb_info: tcb_info.info.get().to_owned(),
            tcb_info_signature: hex::decode(tcb_info.signature).map_err(|_| "tcb: signature is not hex")?,
            qe_identity_issuer_chain: qe.chain(&["SGX-Enclave-Identity-Issuer-Chain"])?,
            qe_identity: qe_identity.identity.get().to_owned(),
            qe_identity_signature: hex::decode(qe_identity.signature)
                .map_err(|_| "qe/identity: signature is not hex")?,
            pck_certificate_chain: None,
        })
    }

    async fn get(&self, path: &str) -> Result<Fetched, String> {
        let url = self.base.join(path).map_err(|error| error.to_string())?;
        let failed = |error: reqwest::Error| format!("{path}: {}", error.without_url());
        let mut response = self.http.get(url).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("{path}: HTTP {}", response.status()));
        }
        let headers = response.headers().clone();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(format!("{path}: longer than {ANSWER_BYTES_MAX} bytes"));
            }
        }
        Ok(Fetched { headers, body })
    }
}

struct Fetched {
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
}

impl Fetched {
    /// A PEM chain out of a header, in which it is percent-encoded.
    fn chain(&self, names: &[&str]) -> Result<String, String> {
        let value = names.iter().find_map(|name| self.headers.get(*name));
        let text = value.and_then(|value| value.to_str().ok()).ok_or(format!("no header {names:?}"))?;
        percent_decoded(text).ok_or(format!("header {names:?} is not percent-encoded text"))
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = tail.get(..2)?;
            let mut byte = [0u8];
            hex::decode_to_slice(digits, &mut byte).ok()?;
            bytes.extend_from_slice(&byte);
            rest = tail.get(2..)?;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("{what}: {error}"))
}

/// Intel's service sends DER, caching services also its hex digits.
fn der_or_hex(body: &[u8]) -> Result<Vec<u8>, String> {
    if body.first() == Some(&0x30) && !body.iter().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(body.to_vec());
    }
    hex::decode(body.trim_ascii()).map_err(|_| "a revocation list is neither DER nor hex".to_owned())
}
