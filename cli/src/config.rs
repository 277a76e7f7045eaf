//! Where a command finds its study: flags, `COHORT_*` variables, or `cohort.toml`, in this order.

use std::path::{Path, PathBuf};

use alloy::primitives::Address;
use clap::Args;
use serde::Deserialize;

use crate::failure::{Failure, Outcome};

/// The file that is read from the current folder when `--config` is not given.
pub const FILE: &str = "cohort.toml";

/// What the options of every command stand under in the help text.
const STUDY: &str = "Where the study is";

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Study configuration; without it, cohort.toml in the current folder if there is one.
    #[arg(long, global = true, help_heading = STUDY, env = "COHORT_CONFIG")]
    config: Option<PathBuf>,
    /// Ethereum JSON-RPC endpoint; repeat or separate by commas for more.
    #[arg(long = "rpc-url", global = true, help_heading = STUDY, env = "COHORT_RPC_URL", value_delimiter = ',')]
    rpc_urls: Vec<reqwest::Url>,
    /// The consortium's DstackApp.
    #[arg(long, global = true, help_heading = STUDY, env = "COHORT_APP")]
    app: Option<Address>,
    /// The DstackKms registry.
    #[arg(long, global = true, help_heading = STUDY, env = "COHORT_REGISTRY")]
    registry: Option<Address>,
    /// The KMS.
    #[arg(long, global = true, help_heading = STUDY, env = "COHORT_KMS_URL")]
    kms_url: Option<reqwest::Url>,
    /// The indexer.
    #[arg(long, global = true, help_heading = STUDY, env = "COHORT_INDEXER_URL")]
    indexer_url: Option<reqwest::Url>,
    /// The agent.
    #[arg(long, global = true, help_heading = STUDY, env = "COHORT_AGENT_URL")]
    agent_url: Option<reqwest::Url>,
    /// The app-compose file that the study runs.
    #[arg(long, global = true, help_heading = STUDY, env = "COHORT_COMPOSE")]
    compose: Option<PathBuf>,
    /// Where verified KMS roots are remembered; without it cohort/known-roots.json under ~/.config.
    #[arg(long, global = true, help_heading = STUDY, env = "COHORT_KNOWN_ROOTS")]
    known_roots: Option<PathBuf>,
    /// Print the result as JSON on standard output.
    #[arg(long, global = true)]
    pub json: bool,
}

/// `cohort.toml`. Every key is optional; a flag or variable of the same name wins.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rpc_urls: Option<Vec<reqwest::Url>>,
    app: Option<Address>,
    registry: Option<Address>,
    kms_url: Option<reqwest::Url>,
    indexer_url: Option<reqwest::Url>,
    agent_url: Option<reqwest::Url>,
    compose: Option<PathBuf>,
    known_roots: Option<PathBuf>,
}

/// Merged settings; what is missing is named when it is asked for.
#[derive(Debug)]
pub struct Settings {
    rpc_urls: Vec<reqwest::Url>,
    app: Option<Address>,
    registry: Option<Address>,
    kms_url: Option<reqwest::Url>,
    indexer_url: Option<reqwest::Url>,
    agent_url: Option<reqwest::Url>,
    compose: Option<PathBuf>,
    known_roots: Option<PathBuf>,
    /// Print JSON.
    pub json: bool,
}

impl Settings {
    /// Merges flags, variables and file.
    pub fn load(global: Global) -> Outcome<Self> {
        let file = read_file(global.config.as_deref())?;
        Ok(Self {
            rpc_urls: if global.rpc_urls.is_empty() {
                file.rpc_urls.unwrap_or_default()
            } else {
                global.rpc_urls
            },
            app: global.app.or(file.app),
            registry: global.registry.or(file.registry),
            kms_url: global.kms_url.or(file.kms_url),
            indexer_url: global.indexer_url.or(file.indexer_url),
            agent_url: global.agent_url.or(file.agent_url),
            compose: global.compose.or(file.compose),
            known_roots: global.known_roots.or(file.known_roots),
            json: global.json,
        })
    }

    /// At least one endpoint.
    pub fn rpc_urls(&self) -> Outcome<&[reqwest::Url]> {
        if self.rpc_urls.is_empty() {
            return Err(missing("RPC endpoint", "--rpc-url", "rpc_urls"));
        }
        Ok(&self.rpc_urls)
    }

    /// Endpoints, if any were given.
    pub fn rpc_urls_if_any(&self) -> &[reqwest::Url] {
        &self.rpc_urls
    }

    /// The consortium's contract.
    pub fn app(&self) -> Outcome<Address> {
        self.app.ok_or_else(|| missing("contract address", "--app", "app"))
    }

    /// The contract, if given.
    pub fn app_if_any(&self) -> Option<Address> {
        self.app
    }

    /// The registry.
    pub fn registry(&self) -> Outcome<Address> {
        self.registry.ok_or_else(|| missing("registry address", "--registry", "registry"))
    }

    /// The KMS.
    pub fn kms_url(&self) -> Outcome<&reqwest::Url> {
        self.kms_url.as_ref().ok_or_else(|| missing("KMS address", "--kms-url", "kms_url"))
    }

    /// The indexer.
    pub fn indexer_url(&self) -> Outcome<&reqwest::Url> {
        self.indexer_url.as_ref().ok_or_else(|| missing("indexer address", "--indexer-url", "indexer_url"))
    }

    /// The agent.
    pub fn agent_url(&self) -> Outcome<&reqwest::Url> {
        self.agent_url.as_ref().ok_or_else(|| missing("agent address", "--agent-url", "agent_url"))
    }

    /// Where verified KMS roots are remembered, if not in the user's configuration.
    pub fn known_roots_if_any(&self) -> Option<&Path> {
        self.known_roots.as_deref()
    }

    /// The app-compose file.
    pub fn compose(&self) -> Outcome<&Path> {
        self.compose.as_deref().ok_or_else(|| missing("app-compose file", "--compose", "compose"))
    }
}

fn missing(what: &str, flag: &str, key: &str) -> Failure {
    let variable = flag.trim_start_matches("--").replace('-', "_").to_uppercase();
    Failure::input(
        format!("no {what} is given"),
        format!("give {flag}, set COHORT_{variable}, or write {key} = ... into {FILE}"),
    )
}

fn read_file(path: Option<&Path>) -> Outcome<File> {
    let (path, required) = path.map_or((Path::new(FILE), false), |given| (given, true));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => return Ok(File::default()),
        Err(e) => return Err(Failure::read(path, &e)),
    };
    toml::from_str(&text).map_err(|e| {
        Failure::input(
            format!("{} is not usable: {}", path.display(), e.message()),
            "see docs/cli.md for its keys",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let error = toml::from_str::<File>("rpc_url = \"http://localhost\"").unwrap_err();
        assert!(error.message().contains("rpc_url"), "{error}");
    }

    #[test]
    fn a_missing_setting_names_flag_variable_and_key() {
        let hint = missing("KMS address", "--kms-url", "kms_url").hint.unwrap();
        assert!(
            hint.contains("--kms-url") && hint.contains("COHORT_KMS_URL") && hint.contains("kms_url ="),
            "{hint}"
        );
    }
}
