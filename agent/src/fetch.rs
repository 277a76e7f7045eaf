//! Ciphertext from folders, the web and object stores: streamed to a folder of the agent's own, and used only after its
//! commitment was checked and found on chain. Plaintext is never written.
//!
//! What is asked for is fixed by the measured configuration and the owner's name; no request chooses an address.
//! Redirects are not followed.

mod s3;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cohort_protocol::ids::OwnerId;
use reqwest::Url;
use tokio::io::AsyncWriteExt as _;
use tracing::info;

pub use s3::Access;
use s3::Bucket;

/// Largest file that is fetched.
const MAX_BYTES: u64 = 64 << 30;
/// Longest pause between two parts of an answer.
const IDLE: Duration = Duration::from_secs(30);

/// A sealed file cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// An address that is neither of the three kinds (http only to this machine itself).
    #[error("sealed files are read from file:///, https:// and s3:// addresses, not from {0}")]
    Scheme(String),
    /// An object store that cannot be asked as configured.
    #[error("cannot ask the object store: {0}")]
    Store(String),
    /// The server, or the way to it.
    #[error("cannot fetch the sealed file of {owner}: {reason}")]
    Http {
        /// Whose.
        owner: OwnerId,
        /// Why; without the address, which may hold a token.
        reason: String,
    },
    /// The folder for fetched files.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Where a file that is not here is asked for.
#[derive(Debug, Clone)]
enum Remote {
    Web(Url),
    Store(Arc<Bucket>),
}

/// Folders on this machine, and others that are asked when those lack a file.
#[derive(Debug, Clone)]
pub struct Sources {
    folders: Vec<PathBuf>,
    remotes: Vec<Remote>,
    fetched: PathBuf,
    http: reqwest::Client,
    max_bytes: u64,
    /// Tells downloads of the same file apart.
    downloads: Arc<AtomicU64>,
}

impl Sources {
    /// `bases` are folders as addresses: `file:///` is read in place, `https://` and `s3://` are fetched into `fetched`.
    ///
    /// Errors: any other address, but for http to this machine itself; an s3 address without credentials in `access`.
    pub fn new(
        folder: PathBuf,
        bases: Vec<Url>,
        fetched: PathBuf,
        access: &Access,
    ) -> Result<Self, FetchError> {
        let (mut folders, mut remotes) = (vec![folder], Vec::new());
        for base in bases {
            match base.scheme() {
                "file" => folders
                    .push(base.to_file_path().map_err(|()| FetchError::Scheme("file://HOST".to_owned()))?),
                "s3" => {
                    remotes.push(Remote::Store(Arc::new(access.bucket(&base).map_err(FetchError::Store)?)))
                }
                _ => remotes.push(Remote::Web(as_folder(checked(base)?))),
            }
        }
        let http = reqwest::Client::builder()
            .connect_timeout(IDLE)
            .read_timeout(IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| FetchError::Scheme(e.without_url().to_string()))?;
        Ok(Self { folders, remotes, fetched, http, max_bytes: MAX_BYTES, downloads: Arc::default() })
    }

    /// Another limit of a file's size in bytes.
    pub fn with_max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// The folders on this machine.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Fetches `OWNER.tar` from everywhere that has it, into a folder of the owner's own. `None`: there is nowhere to
    /// ask. Ended early, by an error or because nobody waits any more, it leaves no part of a file.
    pub async fn fetch(&self, owner: &OwnerId) -> Result<Option<PathBuf>, FetchError> {
        if self.remotes.is_empty() {
            return Ok(None);
        }
        // A name of dots alone would be another folder.
        let folder = self.fetched.join(format!("{owner}.fetched"));
        let unwritable = |source| FetchError::Write { path: folder.clone(), source };
        tokio::fs::create_dir_all(&folder).await.map_err(unwritable)?;
        let (mut known, mut last) = (false, None);
        for (index, remote) in self.remotes.iter().enumerate() {
            let path = folder.join(format!("{index}.tar"));
            match self.fetch_one(owner, remote, &path).await {
                Ok(bytes) => info!(target: "cohort::agent", %owner, bytes, "sealed file fetched"),
                Err(error) => last = Some(error),
            }
            known |= path.exists();
        }
        match last {
            // What was fetched before is as good: the chain says which file counts.
            Some(error) if !known => Err(error),
            _ => Ok(Some(folder)),
        }
    }

    /// Streams one file beside its name and renames it when it is whole.
    async fn fetch_one(&self, owner: &OwnerId, remote: &Remote, path: &Path) -> Result<u64, FetchError> {
        let failed = |reason: String| FetchError::Http { owner: owner.clone(), reason };
        let http = |e: reqwest::Error| failed(e.without_url().to_string());
        let url = remote.address(owner).await?;
        let mut response = self.http.get(url).send().await.map_err(http)?;
        if !response.status().is_success() {
            return Err(failed(format!("HTTP {}", response.status())));
        }
        let too_long = || failed(format!("it is longer than {} bytes", self.max_bytes));
        if response.content_length().is_some_and(|length| length > self.max_bytes) {
            return Err(too_long());
        }
        let number = self.downloads.fetch_add(1, Ordering::Relaxed);
        let part = Part(path.with_extension(format!("{number}.part")));
        let unwritable = |source| FetchError::Write { path: part.0.clone(), source };
        let mut file = tokio::fs::File::create(&part.0).await.map_err(unwritable)?;
        let mut written = 0;
        while let Some(chunk) = response.chunk().await.map_err(http)? {
            written += chunk.len() as u64;
            if written > self.max_bytes {
                return Err(too_long());
            }
            file.write_all(&chunk).await.map_err(unwritable)?;
        }
        file.flush().await.map_err(unwritable)?;
        tokio::fs::rename(&part.0, path).await.map_err(unwritable)?;
        Ok(written)
    }
}

impl Remote {
    /// Where this owner's file is read from, now.
    async fn address(&self, owner: &OwnerId) -> Result<Url, FetchError> {
        let name = format!("{owner}.tar");
        match self {
            Self::Web(base) => base.join(&name).map_err(|e| FetchError::Scheme(e.to_string())),
            Self::Store(bucket) => checked(bucket.address(&name).await.map_err(FetchError::Store)?),
        }
    }
}

/// A file on its way; gone when nobody works on it any more. Once renamed it has another name.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Over TLS, or to this machine itself.
fn checked(url: Url) -> Result<Url, FetchError> {
    let local = url.scheme() == "http" && matches!(url.host_str(), Some("127.0.0.1" | "[::1]"));
    if url.scheme() == "https" || local {
        Ok(url)
    } else {
        Err(FetchError::Scheme(format!("{}://", url.scheme())))
    }
}

/// Joined names replace what follows the last slash.
fn as_folder(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url
}

#[cfg(test)]
mod tests;
