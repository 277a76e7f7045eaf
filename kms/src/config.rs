//! Command line and environment, and what they become.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use alloy::primitives::{Address, B256};
use clap::{Args, Parser, Subcommand};
use cohort_attestation::{
    self as attestation, TcbStatus,
    gpu::{self, GpuPolicy},
};
use cohort_guest::{GuestAgent, GuestError};
use cohort_protocol::{
    eip712,
    hpke::SecretBytes,
    json,
    root::{RootError, replica_key},
    terms::id_list_hash,
};

use crate::{
    chain::Chain,
    collateral::CollateralCache,
    guest::{self, KeyApi},
    indexer::Indexer,
    onboard::{OnboardError, onboard},
    own_evidence::OwnEvidence,
    policy::{CHAIN_ID_MAX, Policy},
    release_log::{Head, LogError, ReleaseLog, SignedHead},
    replicas::{
        Peer, ReplicaSet, Replicas,
        votes::{Ballot, VotesError},
    },
    roots::{RootFileError, Roots, read_root_file},
    service::{Kms, Parts},
};

/// Hands a dataset's key to an attested CVM, exactly while the chain allows it.
#[derive(Debug, Parser)]
#[command(name = "cohort-kms", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the service.
    Serve(Box<Serve>),
    /// Makes or shows a root.
    #[command(subcommand)]
    Root(RootCommand),
    /// Works on a release log.
    #[command(subcommand)]
    Log(LogCommand),
}

/// Makes or shows a root.
#[derive(Debug, Subcommand)]
pub enum RootCommand {
    /// Makes a random root secret in a new file of mode 0600.
    New {
        /// The file to make; an existing one is never overwritten.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Prints the root's signed statement as JSON: address, sealing key.
    Show {
        /// Where the root secret is.
        #[command(flatten)]
        source: RootSource,
        /// EIP-155 chain id.
        #[arg(long, env = "COHORT_KMS_CHAIN_ID")]
        chain_id: u64,
        /// Address of the DstackKms contract.
        #[arg(long, env = "COHORT_KMS_REGISTRY")]
        registry: Address,
        /// Root epoch.
        #[arg(long, default_value_t = 0)]
        epoch: u32,
    },
}

/// Where the root secret comes from: dstack's guest agent, unless a file is named.
#[derive(Debug, Args)]
pub struct RootSource {
    /// Socket of dstack's guest agent. The root secret is the key that dstack derives for this KMS's app, so that none
    /// is configured; the KMS's own quote comes from there too.
    #[arg(long, env = "COHORT_KMS_GUEST_AGENT", value_name = "SOCKET", default_value = cohort_guest::SOCKET)]
    pub guest_agent: PathBuf,
    /// Which derivation of the guest agent: they give different secrets. v0 is the same in all 0.5 and 0.6 releases.
    #[arg(long, env = "COHORT_KMS_GUEST_KEY_API", value_name = "API", default_value = "v0")]
    pub guest_key_api: KeyApi,
    /// For development: takes the root secret from this file (64 hex digits, mode 0600). Whoever reads it opens all
    /// data, and no quote shows where the keys are.
    #[arg(long, env = "COHORT_KMS_INSECURE_ROOT_FILE", value_name = "FILE")]
    pub insecure_root_file: Option<PathBuf>,
}

impl RootSource {
    /// Reads or asks for the secret. The guest agent beside it, if it is from there.
    pub async fn secret(&self) -> Result<(SecretBytes, Option<GuestAgent>), ConfigError> {
        if let Some(path) = &self.insecure_root_file {
            return read_root_file(path).map(|secret| (secret, None)).map_err(ConfigError::Root);
        }
        let guest = GuestAgent::new(&self.guest_agent);
        let secret = guest::root_secret(&guest, self.guest_key_api).await.map_err(ConfigError::Guest)?;
        Ok((secret, Some(guest)))
    }
}

/// Works on a release log.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Verifies a whole log file and prints its end as JSON.
    Verify {
        /// The log.
        file: PathBuf,
    },
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on; port 0 takes a free one, which the first line on stdout tells.
    #[arg(long, env = "COHORT_KMS_LISTEN", default_value = "127.0.0.1:8100")]
    pub listen: SocketAddr,
    /// RPC endpoint of the chain; give several, and all of them must allow a release.
    #[arg(long, env = "COHORT_KMS_RPC_URL", value_delimiter = ',', required = true, value_name = "URL")]
    pub rpc_url: Vec<reqwest::Url>,
    /// The indexer.
    #[arg(long, env = "COHORT_KMS_INDEXER_URL", value_name = "URL")]
    pub indexer_url: reqwest::Url,
    /// Address of the DstackKms contract.
    #[arg(long, env = "COHORT_KMS_REGISTRY")]
    pub registry: Address,
    /// EIP-155 chain id.
    #[arg(long, env = "COHORT_KMS_CHAIN_ID", value_parser = clap::value_parser!(u64).range(1..=CHAIN_ID_MAX))]
    pub chain_id: u64,
    /// Where the root secret is.
    #[command(flatten)]
    pub root: RootSource,
    /// A replica that serves this root, to have the secret from instead: it hands it to a machine that is what its own is
    /// and that the registry allows.
    #[arg(long, env = "COHORT_KMS_ONBOARD_FROM", value_name = "URL", conflicts_with = "insecure_root_file")]
    pub onboard_from: Option<reqwest::Url>,
    /// Hands the root to new replicas: machines that are what this one is and that the registry allows.
    #[arg(long, env = "COHORT_KMS_SERVE_ONBOARDING", conflicts_with = "insecure_root_file")]
    pub serve_onboarding: bool,
    /// This process's name among the replicas of this root. All of them must have the same names.
    #[arg(long, env = "COHORT_KMS_REPLICA", value_name = "NAME", requires_all = ["replica_peer", "replica_votes"])]
    pub replica: Option<String>,
    /// Name and address of another replica.
    #[arg(long, env = "COHORT_KMS_REPLICA_PEER", value_delimiter = ',', value_name = "NAME=URL", value_parser = peer, requires = "replica")]
    pub replica_peer: Vec<Peer>,
    /// What this replica has voted for; made if absent.
    #[arg(long, env = "COHORT_KMS_REPLICA_VOTES", value_name = "FILE", requires = "replica")]
    pub replica_votes: Option<PathBuf>,
    /// This set of replicas has never released anything: with no votes on disk there are none to be learnt from the others.
    #[arg(long, requires = "replica")]
    pub replica_first_start: bool,
    /// Collateral for this KMS's own quote and for agents that ask, as JSON (QuoteCollateralV3): read again when what it has is about to expire.
    #[arg(long, env = "COHORT_KMS_COLLATERAL_FILE", value_delimiter = ',', value_name = "FILE")]
    pub collateral_file: Vec<PathBuf>,
    /// A PCCS (or Intel's PCS) to fetch it from, such as https://api.trustedservices.intel.com/.
    #[arg(long, env = "COHORT_KMS_PCCS_URL", value_name = "URL")]
    pub pccs_url: Option<reqwest::Url>,
    /// Root epochs to serve from that secret.
    #[arg(long, env = "COHORT_KMS_EPOCHS", value_delimiter = ',', default_value = "0")]
    pub epochs: Vec<u32>,
    /// The release log; made if absent.
    #[arg(long, env = "COHORT_KMS_LOG", value_name = "FILE")]
    pub log: PathBuf,
    /// A signed head of that log which was kept elsewhere (`cohort kms log verify --save-head`): the log must go on from it,
    /// else it is an older copy and the service does not start.
    #[arg(long, env = "COHORT_KMS_LOG_HEAD", value_name = "FILE")]
    pub log_head: Option<PathBuf>,
    /// How many blocks an approval must lie below the newest block.
    #[arg(long, env = "COHORT_KMS_CONFIRMATIONS", default_value_t = 12)]
    pub confirmations: u64,
    /// How far the newest block's timestamp may be off the clock.
    #[arg(long, env = "COHORT_KMS_MAX_HEAD_AGE_SECONDS", default_value_t = 60)]
    pub max_head_age_seconds: u64,
    /// How long a certificate of an agent's receipt key is good.
    #[arg(long, env = "COHORT_KMS_CERTIFICATE_SECONDS", default_value_t = 3600)]
    pub certificate_seconds: u64,
    /// How long released keys may be used before the agent must have asked again: revocations end a running
    /// computation after at most this time.
    #[arg(long, env = "COHORT_KMS_LEASE_SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(10..=600))]
    pub lease_seconds: u64,
    /// How much one address may ask, on the average; a release counts as ten requests. A reverse proxy in front is one
    /// address.
    #[arg(long, env = "COHORT_KMS_REQUESTS_PER_SECOND", default_value_t = 200, value_parser = clap::value_parser!(u32).range(20..))]
    pub requests_per_second: u32,
    /// Time limit for everything that one RPC endpoint or the indexer is asked for one release.
    #[arg(long, env = "COHORT_KMS_ASK_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=10))]
    pub ask_seconds: u64,
    /// A further TCB status to accept beside UpToDate; lowers security. For example SWHardeningNeeded.
    #[arg(long, env = "COHORT_KMS_ACCEPT_TCB", value_delimiter = ',', value_name = "STATUS", value_parser = tcb_status)]
    pub accept_tcb: Vec<TcbStatus>,
    /// An Intel advisory to accept; lowers security. For example INTEL-SA-01036.
    #[arg(long, env = "COHORT_KMS_ACCEPT_ADVISORY", value_delimiter = ',', value_name = "ID")]
    pub accept_advisory: Vec<String>,
    /// A list of device ids (ascending, with + between) that terms may be limited to.
    #[arg(long, env = "COHORT_KMS_DEVICE_LIST", value_delimiter = ',', value_name = "ID+ID", value_parser = id_list)]
    pub device_list: Vec<IdList>,
    /// A list of mr_system values (ascending, with + between) that terms may be limited to.
    #[arg(long, env = "COHORT_KMS_SYSTEM_LIST", value_delimiter = ',', value_name = "HASH+HASH", value_parser = id_list)]
    pub system_list: Vec<IdList>,
    /// Stops when standard input ends: for programs that start this one.
    #[arg(long)]
    pub exit_with_stdin: bool,
    /// Signed golden values of GPUs, from `cohort gpu rim import`; without them no recipe that requires a GPU gets keys.
    #[arg(long, env = "COHORT_KMS_GPU_GOLDEN", value_name = "FILE", requires = "gpu_golden_signer")]
    pub gpu_golden: Option<PathBuf>,
    /// Whose signature the golden values must have.
    #[arg(long, env = "COHORT_KMS_GPU_GOLDEN_SIGNER", value_name = "ADDRESS")]
    pub gpu_golden_signer: Option<Address>,
    /// Trusts this development GPU root (PEM or DER) INSTEAD of NVIDIA's.
    #[cfg(feature = "dev")]
    #[arg(long, env = "COHORT_KMS_INSECURE_DEV_GPU_ROOT", value_name = "FILE")]
    pub insecure_dev_gpu_root: Option<PathBuf>,
    /// Trusts this development platform's root (PEM or DER) INSTEAD of Intel's: no confidentiality at all.
    #[cfg(feature = "dev")]
    #[arg(long, env = "COHORT_KMS_INSECURE_DEV_ATTESTATION_ROOT", value_name = "FILE")]
    pub insecure_dev_attestation_root: Option<PathBuf>,
}

/// A list of device ids or `mr_system` values in ascending order.
#[derive(Debug, Clone)]
pub struct IdList(Vec<B256>);

fn id_list(text: &str) -> Result<IdList, String> {
    let ids = text.split('+').map(str::parse).collect::<Result<Vec<B256>, _>>();
    let ids = ids.map_err(|_| "an id is 0x and 64 hex digits")?;
    id_list_hash(&ids).ok_or("the ids must ascend")?;
    Ok(IdList(ids))
}

/// A head that one of this KMS's roots signed.
fn kept_head(path: &Path, policy: &Policy) -> Result<Head, ConfigError> {
    let refuse =
        |why: &dyn std::fmt::Display| ConfigError::LogHead { path: path.to_owned(), why: why.to_string() };
    let bytes = std::fs::read(path).map_err(|error| refuse(&error))?;
    let signed: SignedHead = json::parse(&bytes).map_err(|error| refuse(&error))?;
    let own = policy.roots.iter().any(|root| root.address == signed.root)
        && signed.chain_id == policy.chain_id
        && signed.registry == policy.registry;
    if own && signed.is_signed() {
        return Ok(signed.head);
    }
    Err(refuse(&"it is not signed by this KMS's root for this registry"))
}

fn peer(text: &str) -> Result<Peer, String> {
    let (name, url) = text.split_once('=').ok_or("a replica is NAME=URL")?;
    let url: reqwest::Url = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let url = base_url(url, "--replica-peer").map_err(|error| error.to_string())?;
    Ok(Peer { name: name.to_owned(), url })
}

/// What may be accepted beside `UpToDate`. `Revoked` is refused whatever a policy says.
const ACCEPTABLE: [TcbStatus; 7] = [
    TcbStatus::SWHardeningNeeded,
    TcbStatus::ConfigurationNeeded,
    TcbStatus::ConfigurationAndSWHardeningNeeded,
    TcbStatus::OutOfDate,
    TcbStatus::OutOfDateConfigurationNeeded,
    TcbStatus::TDRelaunchAdvised,
    TcbStatus::TDRelaunchAdvisedConfigurationNeeded,
];

fn tcb_status(text: &str) -> Result<TcbStatus, String> {
    if text == TcbStatus::UpToDate.to_string() {
        return Ok(TcbStatus::UpToDate);
    }
    let found = ACCEPTABLE.into_iter().find(|status| status.to_string() == text);
    found.ok_or_else(|| {
        let names: Vec<String> = ACCEPTABLE.iter().map(ToString::to_string).collect();
        format!("one of UpToDate, {}", names.join(", "))
    })
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The root secret's file.
    #[error("--insecure-root-file cannot be used")]
    Root(#[source] RootFileError),
    /// The root secret's guest agent.
    #[error("dstack's guest agent gives no root secret")]
    Guest(#[source] GuestError),
    /// The root secret of another replica.
    #[error("--onboard-from gives no root secret")]
    Onboard(#[source] OnboardError),
    /// The replica's votes.
    #[error("--replica-votes cannot be used")]
    Votes(#[source] VotesError),
    /// A set of replicas that cannot be.
    #[error("--replica and --replica-peer: {0}")]
    Replicas(&'static str),
    /// The root secret gives no keys.
    #[error("the root secret gives no keys")]
    Derive(#[source] RootFileError),
    /// The root's statement.
    #[error("the root cannot make a statement")]
    Statement(#[source] RootError),
    /// The release log.
    #[error("--log cannot be used")]
    Log(#[source] LogError),
    /// The head that was kept.
    #[error("--log-head {path} cannot be used: {why}")]
    LogHead {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The HTTP clients.
    #[error("--rpc-url or --indexer-url cannot be used")]
    Client(#[source] reqwest::Error),
    /// A base URL that paths cannot be joined to.
    #[error("{flag} must be an http or https URL")]
    Url {
        /// Which option.
        flag: &'static str,
    },
    /// Randomness.
    #[error("the operating system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The golden values of GPUs.
    #[error("--gpu-golden {path} cannot be used")]
    GpuGolden {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: GpuGoldenError,
    },
    /// A development root.
    #[error("the development root {path} cannot be used: {why}")]
    DevelopmentRoot {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Why golden values cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GpuGoldenError {
    /// The file.
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    /// What is in it.
    #[error("it is refused")]
    Golden(#[source] gpu::GoldenError),
}

impl Serve {
    /// Opens root, log and clients. Returns the service, and how many bytes of an unfinished entry were cut off
    /// the log.
    pub async fn open(self) -> Result<(Kms, u64), ConfigError> {
        let evidence_policy = self.evidence_policy()?;
        let gpu_policy = self.gpu_policy()?;
        let limit = Duration::from_secs(self.ask_seconds);
        let pccs_url = self.pccs_url.clone().map(|url| base_url(url, "--pccs-url")).transpose()?;
        let files = self.collateral_file.clone();
        let collateral = Arc::new(CollateralCache::new(files, pccs_url).map_err(ConfigError::Client)?);
        let (secret, guest) = self.secret(&collateral).await?;
        let roots = Roots::derive(&secret, &self.epochs).map_err(ConfigError::Derive)?;
        let replicas = self.replicas(&secret, limit)?;
        let onboarding = self.serve_onboarding.then_some(secret);
        let own_evidence =
            guest.map(|guest| OwnEvidence::new(guest, collateral.clone(), evidence_policy.clone()));
        let policy = Policy {
            chain_id: self.chain_id,
            registry: self.registry,
            roots: roots.identities(),
            self_authorisation: own_evidence.is_some(),
            confirmations: self.confirmations,
            max_head_age_seconds: self.max_head_age_seconds,
            certificate_seconds: self.certificate_seconds,
            lease_seconds: self.lease_seconds,
            device_lists: self.device_list.into_iter().map(|list| list.0).collect(),
            system_lists: self.system_list.into_iter().map(|list| list.0).collect(),
        };
        let rpc_urls = self.rpc_url.into_iter().map(|url| base_url(url, "--rpc-url"));
        let rpc_urls = rpc_urls.collect::<Result<_, _>>()?;
        let chain =
            Chain::new(rpc_urls, self.registry, self.confirmations, limit).map_err(ConfigError::Client)?;
        let mut indexer_url = base_url(self.indexer_url, "--indexer-url")?;
        if !indexer_url.path().ends_with('/') {
            let path = format!("{}/", indexer_url.path());
            indexer_url.set_path(&path);
        }
        let indexer = Indexer::new(indexer_url, limit).map_err(ConfigError::Client)?;
        let (log, torn_bytes) = ReleaseLog::open(&self.log).map_err(ConfigError::Log)?;
        if let Some(path) = &self.log_head {
            let head = kept_head(path, &policy)?;
            log.check_goes_on_from(&head).map_err(ConfigError::Log)?;
        }
        let parts = Parts {
            policy,
            evidence_policy,
            gpu_policy,
            roots,
            chain,
            indexer,
            log,
            own_evidence,
            collateral,
            replicas,
            onboarding,
        };
        Ok((Kms::new(parts).map_err(ConfigError::Random)?, torn_bytes))
    }

    /// The root secret, from where the options say, and the guest agent that makes this KMS's own quotes.
    async fn secret(
        &self,
        collateral: &CollateralCache,
    ) -> Result<(SecretBytes, Option<GuestAgent>), ConfigError> {
        let Some(url) = self.onboard_from.clone() else { return self.root.secret().await };
        let url = base_url(url, "--onboard-from")?;
        let guest = GuestAgent::new(&self.root.guest_agent);
        let secret = onboard(&url, &guest, collateral, (self.chain_id, self.registry)).await;
        Ok((secret.map_err(ConfigError::Onboard)?, Some(guest)))
    }

    fn replicas(&self, secret: &SecretBytes, limit: Duration) -> Result<Option<Arc<Replicas>>, ConfigError> {
        let Some((own, votes)) = self.replica.clone().zip(self.replica_votes.as_ref()) else {
            return Ok(None);
        };
        let set = ReplicaSet { own, peers: self.replica_peer.clone() };
        set.check().map_err(ConfigError::Replicas)?;
        let ballot = Ballot::open(votes, self.replica_first_start).map_err(ConfigError::Votes)?;
        let registry = (self.chain_id, self.registry);
        let replicas = Replicas::new(set, &replica_key(secret), registry, ballot, limit);
        replicas.map(|replicas| Some(Arc::new(replicas))).map_err(ConfigError::Client)
    }

    fn evidence_policy(&self) -> Result<attestation::Policy, ConfigError> {
        let policy = attestation::Policy::production();
        let policy = self.accept_tcb.iter().fold(policy, |policy, status| policy.accept_status(*status));
        let policy = self.accept_advisory.iter().fold(policy, |policy, id| policy.accept_advisory(id));
        #[cfg(feature = "dev")]
        if let Some(path) = &self.insecure_dev_attestation_root {
            return Ok(policy.with_root(development_root(path)?));
        }
        Ok(policy)
    }

    fn gpu_policy(&self) -> Result<GpuPolicy, ConfigError> {
        let mut policy = GpuPolicy::production();
        if let Some((path, signer)) = self.gpu_golden.as_ref().zip(self.gpu_golden_signer) {
            let refused = |source| ConfigError::GpuGolden { path: path.clone(), source };
            let bytes = std::fs::read(path).map_err(|error| refused(GpuGoldenError::Read(error)))?;
            let domain = eip712::kms_domain(self.chain_id, self.registry);
            let golden = gpu::SignedGoldenValues::parse(&bytes)
                .and_then(|signed| signed.verify(signer, &domain))
                .map_err(|error| refused(GpuGoldenError::Golden(error)))?;
            policy = policy.with_golden(golden);
        }
        #[cfg(feature = "dev")]
        if let Some(path) = &self.insecure_dev_gpu_root {
            let refused = |error: gpu::DevelopmentGpuRootError| ConfigError::DevelopmentRoot {
                path: path.clone(),
                why: error.to_string(),
            };
            let root = gpu::GpuRoot::development(&certificate(path)?).map_err(refused)?;
            policy = policy.with_root(root);
        }
        Ok(policy)
    }

    /// The development roots that are trusted, each with the maker instead of whose root.
    pub fn insecure_roots(&self) -> Vec<(&Path, &'static str)> {
        #[cfg(feature = "dev")]
        return [(&self.insecure_dev_attestation_root, "Intel"), (&self.insecure_dev_gpu_root, "NVIDIA")]
            .into_iter()
            .filter_map(|(path, maker)| Some((path.as_deref()?, maker)))
            .collect();
        #[cfg(not(feature = "dev"))]
        Vec::new()
    }
}

fn base_url(url: reqwest::Url, flag: &'static str) -> Result<reqwest::Url, ConfigError> {
    let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
    if is_http { Ok(url) } else { Err(ConfigError::Url { flag }) }
}

#[cfg(feature = "dev")]
fn development_root(path: &Path) -> Result<attestation::TrustedRoot, ConfigError> {
    let refused = |why: String| ConfigError::DevelopmentRoot { path: path.to_owned(), why };
    attestation::TrustedRoot::development(&certificate(path)?).map_err(|error| refused(error.to_string()))
}

/// A certificate in a file: PEM or DER.
#[cfg(feature = "dev")]
fn certificate(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let refused = |why: String| ConfigError::DevelopmentRoot { path: path.to_owned(), why };
    let bytes = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let Ok(pem) = std::str::from_utf8(&bytes) else {
        return Ok(bytes);
    };
    let (label, document) = der::Document::from_pem(pem).map_err(|error| refused(error.to_string()))?;
    if label != "CERTIFICATE" {
        return Err(refused(format!("it holds {label}, no certificate")));
    }
    Ok(document.into_vec())
}
