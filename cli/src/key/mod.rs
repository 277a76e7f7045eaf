//! Which key signs: a key file, an encrypted keystore or a Ledger. Never picked silently, never on the command line itself.

mod keystore;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

#[cfg(feature = "ledger")]
use alloy::signers::Signer as _;
use alloy::{
    network::EthereumWallet,
    primitives::{Address, Signature},
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::{Eip712Domain, SolStruct},
};
use clap::Args;
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};
use keystore::KeystoreError;

/// A key in a file.
#[derive(Debug, Clone, Args)]
pub struct KeyArg {
    /// File with the private key (64 hex digits), readable by you alone (mode 0600).
    #[arg(long, value_name = "FILE", env = "COHORT_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Encrypted JSON keystore (Web3 Secret Storage, version 3); its password is asked for on the terminal.
    #[arg(long, value_name = "FILE")]
    keystore: Option<PathBuf>,
    /// File with the keystore's password (mode 0600), or /dev/fd/N for an open file descriptor; nothing is asked then.
    #[arg(long, value_name = "FILE", requires = "keystore")]
    password_file: Option<PathBuf>,
}

impl KeyArg {
    /// Reads the key.
    pub fn signer(&self) -> Outcome<PrivateKeySigner> {
        match (&self.key_file, &self.keystore) {
            (Some(file), None) => plain(file),
            (None, Some(file)) => encrypted(file, self.password_file.as_deref()),
            (Some(_), Some(_)) => Err(two_keys("--key-file (or COHORT_KEY_FILE) and --keystore")),
            (None, None) => Err(Failure::input(
                "no key is given",
                "give --key-file or --keystore; approve, reject, revoke and relay also take --ledger",
            )),
        }
    }

    fn is_given(&self) -> bool {
        self.key_file.is_some() || self.keystore.is_some()
    }
}

/// A key in a file, or in a Ledger.
#[derive(Debug, Clone, Args)]
pub struct AccountArg {
    #[command(flatten)]
    key: KeyArg,
    /// Sign with the Ledger on this machine's USB, by the account at this derivation path.
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = LEDGER_PATH)]
    ledger: Option<String>,
}

/// The first account of Ledger Live.
const LEDGER_PATH: &str = "m/44'/60'/0'/0/0";

impl AccountArg {
    /// Opens it; a Ledger must be unlocked with its Ethereum app open.
    pub async fn open(&self) -> Outcome<Account> {
        match &self.ledger {
            Some(_) if self.key.is_given() => {
                Err(two_keys("--ledger and a file (--key-file, COHORT_KEY_FILE or --keystore)"))
            }
            Some(path) => ledger::open(path).await,
            None => self.key.signer().map(Account::Key),
        }
    }

    /// Whether any was named.
    pub fn is_given(&self) -> bool {
        self.ledger.is_some() || self.key.is_given()
    }
}

/// An account that signs.
pub enum Account {
    /// With a key in memory.
    Key(PrivateKeySigner),
    /// With a key in a Ledger.
    #[cfg(feature = "ledger")]
    Ledger(alloy_signer_ledger::LedgerSigner),
}

impl Account {
    /// Its address.
    pub fn address(&self) -> Address {
        match self {
            Self::Key(key) => key.address(),
            #[cfg(feature = "ledger")]
            Self::Ledger(ledger) => ledger.address(),
        }
    }

    /// Signs an EIP-712 message: r, s and v, v 27 or 28. A Ledger asks its owner, showing the two hashes.
    pub async fn sign<T: SolStruct + Send + Sync>(
        &self,
        message: &T,
        domain: &Eip712Domain,
    ) -> Outcome<Signature> {
        match self {
            Self::Key(key) => key
                .sign_hash_sync(&message.eip712_signing_hash(domain))
                .map_err(|e| Failure::input(e, "check the key file")),
            #[cfg(feature = "ledger")]
            Self::Ledger(device) => {
                eprintln!(
                    "compare on the Ledger: domain hash {}, message hash {}",
                    domain.separator(),
                    message.eip712_hash_struct()
                );
                device.sign_typed_data(message, domain).await.map_err(|e| ledger::trouble(&e))
            }
        }
    }
}

impl From<Account> for EthereumWallet {
    fn from(account: Account) -> Self {
        match account {
            Account::Key(key) => key.into(),
            #[cfg(feature = "ledger")]
            Account::Ledger(ledger) => ledger.into(),
        }
    }
}

fn two_keys(which: &str) -> Failure {
    Failure::input(format!("two keys are given: {which}"), "give one")
}

fn plain(path: &Path) -> Outcome<PrivateKeySigner> {
    let text = read_secret(path, "key file")?;
    let bad = || {
        Failure::input(
            format!("key file {} does not hold a private key", path.display()),
            "it must hold 64 hex digits, with or without 0x, and nothing else",
        )
    };
    let mut bytes = Zeroizing::new([0u8; 32]);
    hex::decode_to_slice(text.trim().trim_start_matches("0x"), bytes.as_mut()).map_err(|_| bad())?;
    PrivateKeySigner::from_slice(bytes.as_ref()).map_err(|_| bad())
}

fn encrypted(path: &Path, password_file: Option<&Path>) -> Outcome<PrivateKeySigner> {
    let json = fs::read(path).map_err(|e| Failure::read(path, &e))?;
    let password = match password_file {
        Some(file) => {
            let text = read_secret(file, "password file")?;
            Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        None => ask_password(path)?,
    };
    let bytes = keystore::open(&json, password.as_bytes()).map_err(|e| {
        let hint = match e {
            KeystoreError::Password => "check the password",
            _ => "give a file as geth or `cast wallet import` writes it",
        };
        Failure::input(format!("keystore {} does not open: {e}", path.display()), hint)
    })?;
    PrivateKeySigner::from_slice(&bytes).map_err(|_| {
        Failure::input(
            format!("keystore {} holds no private key", path.display()),
            "give an Ethereum account's",
        )
    })
}

fn ask_password(path: &Path) -> Outcome<Zeroizing<String>> {
    rpassword::prompt_password(format!("password of {}: ", path.display())).map(Zeroizing::new).map_err(|e| {
        Failure::input(
            format!("the password of {} cannot be asked for: {e}", path.display()),
            "answer on a terminal, or give --password-file",
        )
    })
}

/// A file that nobody else may read.
fn read_secret(path: &Path, what: &str) -> Outcome<Zeroizing<String>> {
    let mode = fs::metadata(path).map_err(|e| Failure::read(path, &e))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure::input(
            format!("{what} {} can be read by others (mode {:03o})", path.display(), mode & 0o777),
            format!("chmod 600 {}", path.display()),
        ));
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(|e| Failure::read(path, &e))
}

#[cfg(feature = "ledger")]
mod ledger {
    use alloy_signer_ledger::{HDPath, LedgerSigner};

    use super::{Account, Failure, Outcome};

    pub(super) async fn open(path: &str) -> Outcome<Account> {
        if !is_path(path) {
            return Err(Failure::input(
                format!("{path:?} is no derivation path"),
                format!("write it like {}", super::LEDGER_PATH),
            ));
        }
        LedgerSigner::new(HDPath::Other(path.to_owned()), None)
            .await
            .map(Account::Ledger)
            .map_err(|e| trouble(&e))
    }

    /// `m`, then one to ten numbers below 2^31, each hardened or not.
    pub(super) fn is_path(path: &str) -> bool {
        let Some(steps) = path.strip_prefix("m/") else { return false };
        let number = |step: &str| {
            let digits = step.strip_suffix('\'').unwrap_or(step);
            digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u32>().is_ok_and(|n| n < 1 << 31)
        };
        steps.split('/').count() <= 10 && steps.split('/').all(number)
    }

    pub(super) fn trouble(error: &dyn std::fmt::Display) -> Failure {
        Failure::unreachable(
            format!("the Ledger does not sign: {error}"),
            "connect and unlock it, open its Ethereum app, and let this user write to the device (udev rules)",
        )
    }
}

#[cfg(not(feature = "ledger"))]
mod ledger {
    use super::{Account, Failure, Outcome};

    pub(super) async fn open(_path: &str) -> Outcome<Account> {
        Err(Failure::input(
            "this build has no Ledger support",
            "build it in: cargo install --path cli --features ledger; script/approve and its siblings also take --ledger",
        ))
    }
}

#[cfg(all(test, feature = "ledger"))]
mod tests {
    #[test]
    fn derivation_paths_are_checked_before_the_device_is_asked() {
        for good in [super::LEDGER_PATH, "m/44'/60'/0'/7", "m/0"] {
            assert!(super::ledger::is_path(good), "{good}");
        }
        for bad in
            ["", "m", "m/", "44'/60'", "m/x", "m/+1", "m/2147483648", "m/1''", "m/0/0/0/0/0/0/0/0/0/0/0"]
        {
            assert!(!super::ledger::is_path(bad), "{bad}");
        }
    }
}
