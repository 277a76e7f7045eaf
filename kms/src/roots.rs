//! The root's keys of each epoch that this KMS serves, and the file that holds their secret.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use alloy::primitives::{Address, B256, keccak256};
use cohort_protocol::{
    hpke::{self, SecretBytes},
    root::{RootError, RootKeys},
    sealed::root_key_id,
};
use zeroize::Zeroizing;

use crate::keys::Remembered;

/// A root secret that cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum RootFileError {
    /// The file cannot be read.
    #[error("cannot read the root file {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others than the owner may use the file.
    #[error("the root file {path} has mode {mode:04o}: others could read it. Run: chmod 600 {path}")]
    Permissions {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not 64 hex digits.
    #[error(
        "the root file {path} must hold 64 lower-case hex digits and nothing else. Make one: cohort-kms root new"
    )]
    Content {
        /// Which.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write the root file {path}; an existing one is never overwritten")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No randomness.
    #[error("the operating system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The secret gives no keys.
    #[error("cannot derive the root's keys")]
    Derive(#[source] RootError),
}

/// Reads a root secret: 64 hex digits and perhaps a line break, in a file that only its owner may use.
pub fn read_root_file(path: &Path) -> Result<SecretBytes, RootFileError> {
    let read = |source| RootFileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let mode = file.metadata().map_err(read)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(RootFileError::Permissions { path: path.to_owned(), mode });
    }
    let content = || RootFileError::Content { path: path.to_owned() };
    let mut text = Zeroizing::new(Vec::with_capacity(128));
    (&file).take(66).read_to_end(&mut text).map_err(read)?;
    let digits = text.strip_suffix(b"\n").unwrap_or(&text);
    if digits.iter().any(u8::is_ascii_uppercase) {
        return Err(content());
    }
    let mut secret = Zeroizing::new([0u8; 32]);
    hex::decode_to_slice(digits, secret.as_mut_slice()).map_err(|_| content())?;
    Ok(SecretBytes::new(*secret))
}

/// Makes a random root secret in a new file of mode 0600, and returns it.
pub fn new_root_file(path: &Path) -> Result<SecretBytes, RootFileError> {
    let secret = hpke::random_secret().map_err(RootFileError::Random)?;
    let write = |source| RootFileError::Write { path: path.to_owned(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(write)?;
    let mut text = Zeroizing::new(hex::encode(secret.expose_secret()));
    text.push('\n');
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(write)?;
    Ok(secret)
}

/// The public identity of one epoch's keys, as the registry lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootIdentity {
    /// Epoch.
    pub epoch: u32,
    /// Address of the signing key.
    pub address: Address,
    /// keccak256 of the sealing key.
    pub sealing_key_hash: B256,
    /// SHA-256 of the sealing key: its name in envelopes.
    pub key_id: B256,
}

/// The keys of all epochs that this KMS serves.
#[derive(Debug)]
pub struct Roots {
    keys: Vec<RootKeys>,
    pub(crate) wrap_keys: Remembered,
}

impl Roots {
    /// Derives the keys of `epochs` from the secret.
    pub fn derive(secret: &SecretBytes, epochs: &[u32]) -> Result<Self, RootFileError> {
        let keys = epochs.iter().map(|epoch| RootKeys::derive(secret, *epoch));
        keys.collect::<Result<_, _>>()
            .map(|keys| Self { keys, wrap_keys: Remembered::default() })
            .map_err(RootFileError::Derive)
    }

    /// The keys of one epoch.
    pub fn epoch(&self, epoch: u32) -> Option<&RootKeys> {
        self.keys.iter().find(|keys| keys.epoch == epoch)
    }

    /// The keys behind an address.
    pub fn address(&self, address: Address) -> Option<&RootKeys> {
        self.keys.iter().find(|keys| keys.address() == address)
    }

    /// The public identities.
    pub fn identities(&self) -> Vec<RootIdentity> {
        let identity = |keys: &RootKeys| RootIdentity {
            epoch: keys.epoch,
            address: keys.address(),
            sealing_key_hash: keccak256(keys.sealing.public_key().as_bytes()),
            key_id: root_key_id(keys.sealing.public_key()),
        };
        self.keys.iter().map(identity).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn a_new_root_file_reads_back_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        let secret = new_root_file(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(read_root_file(&path).unwrap().expose_secret(), secret.expose_secret());
        assert!(matches!(new_root_file(&path), Err(RootFileError::Write { .. })));
        assert_eq!(read_root_file(&path).unwrap().expose_secret(), secret.expose_secret());
    }

    #[test]
    fn a_root_file_that_others_may_use_is_refused_with_the_command_that_helps() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        new_root_file(&path).unwrap();
        for mode in [0o640, 0o604, 0o610, 0o620, 0o666] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = read_root_file(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(read_root_file(&path).is_ok());
    }

    #[test]
    fn other_contents_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (at, text) in ["", "ab", &"AB".repeat(32), &"ab".repeat(33), &format!("0x{}", "ab".repeat(32))]
            .iter()
            .enumerate()
        {
            let path = dir.path().join(at.to_string());
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(read_root_file(&path), Err(RootFileError::Content { .. })), "{text}");
        }
    }
}
