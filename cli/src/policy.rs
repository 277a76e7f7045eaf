//! Which evidence is taken: Intel's roots, and in builds that can hold one a development root.

#[cfg(feature = "dev")]
use std::path::PathBuf;

use clap::Args;
use cohort_attestation::Policy;

use crate::failure::Outcome;

/// Which evidence is taken.
#[derive(Debug, Clone, Default, Args)]
pub struct PolicyArgs {
    /// Accept evidence under this development root (PEM): it proves nothing about any hardware.
    #[cfg(feature = "dev")]
    #[arg(long, env = "COHORT_INSECURE_DEV_ATTESTATION_ROOT")]
    insecure_dev_attestation_root: Option<PathBuf>,
}

impl PolicyArgs {
    /// Production's, with the development root if one is given; whose evidence that is, is told.
    #[cfg(feature = "dev")]
    pub fn policy(&self, whose: &str) -> Outcome<Policy> {
        let Some(path) = &self.insecure_dev_attestation_root else { return Ok(Policy::production()) };
        let root = crate::dev::attestation_root(path)?;
        eprintln!(
            "warning: {} is a development root: {whose} evidence proves nothing about hardware",
            path.display()
        );
        Ok(Policy::production().with_root(root))
    }

    /// Production's.
    #[cfg(not(feature = "dev"))]
    pub fn policy(&self, _whose: &str) -> Outcome<Policy> {
        Ok(Policy::production())
    }
}
