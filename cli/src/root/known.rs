//! The roots that this user has verified, one per chain and registry, in one file of mode 0600.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use alloy::primitives::Address;
use serde::{Deserialize, Serialize};

use super::VerifiedRoot;
use crate::{
    config::Settings,
    failure::{Failure, Outcome},
    files,
};

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
enum Format {
    #[default]
    #[serde(rename = "cohort-known-roots/1")]
    V1,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    format: Format,
    roots: Vec<VerifiedRoot>,
}

/// The file; it need not exist yet.
#[derive(Debug)]
pub struct KnownRoots {
    path: PathBuf,
}

impl KnownRoots {
    /// `known_roots` of the settings, or the user's own under `$XDG_CONFIG_HOME` or `~/.config`.
    pub fn of(settings: &Settings) -> Outcome<Self> {
        if let Some(path) = settings.known_roots_if_any() {
            return Ok(Self { path: path.to_owned() });
        }
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
        let config = config.ok_or_else(|| {
            Failure::input(
                "there is no place to remember the KMS root: neither XDG_CONFIG_HOME nor HOME is set",
                "give --known-roots FILE",
            )
        })?;
        Ok(Self { path: config.join("cohort/known-roots.json") })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root of this registry, if one is known.
    pub fn find(&self, chain_id: u64, registry: Address) -> Outcome<Option<VerifiedRoot>> {
        let of_this =
            |root: &VerifiedRoot| (root.statement.chain_id, root.statement.registry) == (chain_id, registry);
        Ok(self.read()?.roots.into_iter().find(of_this))
    }

    /// The roots of this registry, on whatever chain.
    pub fn of_registry(&self, registry: Address) -> Outcome<Vec<VerifiedRoot>> {
        Ok(self.read()?.roots.into_iter().filter(|root| root.statement.registry == registry).collect())
    }

    /// Remembers a root in place of another of the same chain and registry.
    pub fn remember(&self, record: &VerifiedRoot) -> Outcome {
        let failed = |e: std::io::Error| Failure::write(&self.path, &e);
        let folder = self.path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(failed)?;
        // Two commands at once must not lose each other's record.
        let lock = File::create(self.path.with_extension("lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut list = self.read()?;
        let key = |root: &VerifiedRoot| (root.statement.chain_id, root.statement.registry);
        list.roots.retain(|root| key(root) != key(record));
        list.roots.push(record.clone());
        // Made with mode 0600 by tempfile, and never wider.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        serde_json::to_writer_pretty(&mut file, &list).map_err(|e| failed(e.into()))?;
        file.write_all(b"\n").and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&self.path).map_err(|e| failed(e.error))?;
        Ok(())
    }

    fn read(&self) -> Outcome<List> {
        let mode = match fs::metadata(&self.path) {
            Ok(metadata) => metadata.permissions().mode(),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(List::default()),
            Err(e) => return Err(Failure::read(&self.path, &e)),
        };
        if mode & 0o022 != 0 {
            return Err(Failure::input(
                format!("{} can be written by others (mode {:03o})", self.path.display(), mode & 0o777),
                format!("look at it, then: chmod 600 {}", self.path.display()),
            ));
        }
        files::read_json(&self.path, "a list of known roots")
    }
}
