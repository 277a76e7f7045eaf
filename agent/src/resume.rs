//! What survives a crash: a signed result whose receipt is not confirmed yet, sealed on the CVM's disk.
//!
//! It is written before its receipt is posted, so that a receipt on chain always has its result, and read at the next
//! start, which posts the very same receipt if that is missing and reveals after the same checks. Nothing here decides
//! anything: who deletes the file loses the result, who restores an old one gets the same receipt, and the chain
//! takes one receipt a run. The key comes from the guest agent and the compose hash (docs/spec/sign-rpc.md).

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use aes_gcm::{
    Aes256Gcm, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use cohort_attestation::Evidence;
use cohort_protocol::{
    hpke::SecretBytes,
    ids::{ComposeHash, RunId},
    release::{Binding, Certificate},
    sign_rpc::{Input, SignedReceipt},
    terms::{SignedRunRequest, Terms},
};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Format tag: salt of the key and part of what is authenticated.
const FORMAT: &[u8] = b"cohort-resume/1";
/// How a sealed file's name ends.
const EXTENSION: &str = "sealed";
/// Bytes of the nonce that precedes the ciphertext.
const NONCE_BYTES: usize = 12;
/// Files larger than this are none of ours.
const MAX_BYTES: u64 = 16 << 20;

/// A result that is complete but for the place of its receipt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// `intel` or `development`.
    pub platform: String,
    /// The guarded output.
    pub payload: serde_json::Value,
    /// Signed; posted as it is, however often that has to be tried.
    pub receipt: SignedReceipt,
    /// For the key that signed it.
    pub certificate: Certificate,
    /// The terms of the run.
    pub terms: Terms,
    /// The analyst's request.
    pub run: SignedRunRequest,
    /// By ascending owner index.
    pub inputs: Vec<Input>,
    /// What the quote commits to.
    pub binding: Binding,
    /// The evidence that the keys were released for.
    pub evidence: Evidence,
}

/// A sealed result could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The folder or a file in it.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Encoding, randomness or encryption.
    #[error("cannot seal a result")]
    Seal,
}

/// The folder of sealed results.
pub struct Keeper {
    folder: PathBuf,
    cipher: Aes256Gcm,
}

impl Keeper {
    /// For this compose hash, under a secret of the guest agent. Makes the folder.
    pub fn new(folder: &Path, secret: &SecretBytes, compose: ComposeHash) -> Result<Self, ResumeError> {
        let unwritable = |source| ResumeError::Write { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(unwritable)?;
        let mut key = Zeroizing::new([0u8; 32]);
        Hkdf::<Sha256>::new(Some(FORMAT), secret.expose_secret())
            .expand(compose.as_bytes(), key.as_mut())
            .map_err(|_| ResumeError::Seal)?;
        let cipher = Aes256Gcm::new_from_slice(key.as_ref()).map_err(|_| ResumeError::Seal)?;
        Ok(Self { folder: folder.to_owned(), cipher })
    }

    /// Seals a result and returns when it is on disk.
    pub fn save(&self, pending: &Pending) -> Result<(), ResumeError> {
        let run = pending.receipt.run_id;
        let plain = Zeroizing::new(serde_json::to_vec(pending).map_err(|_| ResumeError::Seal)?);
        let sealed = self.seal(run, &plain)?;
        let path = self.path(run);
        self.write(&path, &sealed).map_err(|source| ResumeError::Write { path, source })
    }

    /// AES-256-GCM under a random nonce, which precedes the ciphertext; the run is authenticated.
    fn seal(&self, run: RunId, plain: &[u8]) -> Result<Vec<u8>, ResumeError> {
        let random = cohort_protocol::hpke::random_secret().map_err(|_| ResumeError::Seal)?;
        let nonce = random.expose_secret().first_chunk::<NONCE_BYTES>().ok_or(ResumeError::Seal)?;
        let sealed = self
            .cipher
            .encrypt(&Nonce::from(*nonce), Payload { msg: plain, aad: &aad(run) })
            .map_err(|_| ResumeError::Seal)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    fn unseal(&self, run: RunId, bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload { msg: sealed, aad: &aad(run) };
        self.cipher.decrypt(&Nonce::from(*nonce), payload).ok().map(Zeroizing::new)
    }

    /// Beside its name first, then renamed, each step on disk before the next: never a half file.
    fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let beside = path.with_extension("part");
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// All results that open with this key. Others are passed over: their runs stay open on chain, which everybody sees.
    pub fn load(&self) -> Vec<Pending> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let sealed = paths.filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
        sealed.filter_map(|path| self.open(&path)).collect()
    }

    fn open(&self, path: &Path) -> Option<Pending> {
        let run: RunId = path.file_stem()?.to_str()?.parse().ok()?;
        if fs::metadata(path).ok()?.len() > MAX_BYTES {
            return None;
        }
        let plain = self.unseal(run, &fs::read(path).ok()?)?;
        let pending: Pending = serde_json::from_slice(&plain).ok()?;
        (pending.receipt.run_id == run).then_some(pending)
    }

    fn path(&self, run: RunId) -> PathBuf {
        self.folder.join(format!("{run}.{EXTENSION}"))
    }
}

fn aad(run: RunId) -> Vec<u8> {
    [FORMAT, run.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::B256;
    use cohort_protocol::hpke;

    #[test]
    fn a_result_comes_back_only_under_its_own_key_run_and_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let secret = hpke::random_secret().unwrap();
        let keeper = |secret: &SecretBytes, compose| {
            Keeper::new(folder.path(), secret, ComposeHash(B256::repeat_byte(compose))).unwrap()
        };
        let (ours, run) = (keeper(&secret, 1), RunId(B256::repeat_byte(7)));
        let sealed = ours.seal(run, b"measures").unwrap();
        assert_eq!(ours.unseal(run, &sealed).unwrap().as_slice(), b"measures");
        assert!(!sealed.windows(8).any(|window| window == b"measures"), "it is not in clear");
        assert_ne!(sealed, ours.seal(run, b"measures").unwrap(), "each time under another nonce");

        assert!(ours.unseal(RunId(B256::repeat_byte(8)), &sealed).is_none(), "another run");
        assert!(keeper(&secret, 2).unseal(run, &sealed).is_none(), "another compose hash");
        let other = hpke::random_secret().unwrap();
        assert!(keeper(&other, 1).unseal(run, &sealed).is_none(), "another guest agent's secret");
        for at in [0, NONCE_BYTES, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(ours.unseal(run, &changed).is_none(), "byte {at}");
        }
        assert!(ours.unseal(run, &sealed[..5]).is_none());
    }

    #[test]
    fn what_is_no_kept_result_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let keeper =
            Keeper::new(folder.path(), &hpke::random_secret().unwrap(), ComposeHash(B256::ZERO)).unwrap();
        let run = RunId(B256::repeat_byte(7));
        fs::write(keeper.path(run), keeper.seal(run, b"{}").unwrap()).unwrap();
        fs::write(folder.path().join("x.sealed"), b"x").unwrap();
        fs::write(folder.path().join("y.part"), b"x").unwrap();
        assert!(keeper.load().is_empty());
    }
}
