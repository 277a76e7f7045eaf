//! Ciphertext from the web: streamed to a folder and used only after its commitment was checked and found on chain.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use cohort_protocol::ids::OwnerId;
use reqwest::Url;
use tokio::io::AsyncWriteExt as _;
use tracing::info;

/// Largest file that is fetched.
const MAX_BYTES: u64 = 64 << 30;
/// Longest pause between two parts of an answer.
const IDLE: Duration = Duration::from_secs(30);

/// A sealed file cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// An address that is not https (or http on this machine).
    #[error("sealed files are fetched from https:// addresses, not from {0}")]
    Scheme(String),
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

/// A folder, and web folders that are asked when it lacks a file.
#[derive(Debug, Clone)]
pub struct Sources {
    folder: PathBuf,
    bases: Vec<Url>,
    fetched: PathBuf,
    http: reqwest::Client,
}

impl Sources {
    /// Errors: an address that is neither https nor http to this machine itself.
    pub fn new(folder: PathBuf, bases: Vec<Url>, fetched: PathBuf) -> Result<Self, FetchError> {
        let local =
            |url: &Url| url.scheme() == "http" && matches!(url.host_str(), Some("127.0.0.1" | "[::1]"));
        let mut folders = Vec::with_capacity(bases.len());
        for mut base in bases {
            if base.scheme() != "https" && !local(&base) {
                return Err(FetchError::Scheme(format!("{}://", base.scheme())));
            }
            // Joined names replace what follows the last slash.
            if !base.path().ends_with('/') {
                base.set_path(&format!("{}/", base.path()));
            }
            folders.push(base);
        }
        let http = reqwest::Client::builder()
            .connect_timeout(IDLE)
            .read_timeout(IDLE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| FetchError::Scheme(e.without_url().to_string()))?;
        Ok(Self { folder, bases: folders, fetched, http })
    }

    /// The local folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Fetches `OWNER.tar` from every web folder that has it, into a folder of the owner's own. `None`: there are no
    /// web folders.
    pub async fn fetch(&self, owner: &OwnerId) -> Result<Option<PathBuf>, FetchError> {
        if self.bases.is_empty() {
            return Ok(None);
        }
        let folder = self.fetched.join(owner.as_str());
        let unwritable = |source| FetchError::Write { path: folder.clone(), source };
        tokio::fs::create_dir_all(&folder).await.map_err(unwritable)?;
        let mut last = None;
        for (index, base) in self.bases.iter().enumerate() {
            match self.fetch_one(owner, base, &folder.join(format!("{index}.tar"))).await {
                Ok(bytes) => info!(target: "cohort::agent", %owner, bytes, "sealed file fetched"),
                Err(error) => last = Some(error),
            }
        }
        match (
            tokio::fs::read_dir(&folder).await.map_err(unwritable)?.next_entry().await.map_err(unwritable)?,
            last,
        ) {
            (None, Some(error)) => Err(error),
            _ => Ok(Some(folder)),
        }
    }

    /// Streams one file beside its name and renames it when it is whole.
    async fn fetch_one(&self, owner: &OwnerId, base: &Url, path: &Path) -> Result<u64, FetchError> {
        let failed = |reason: String| FetchError::Http { owner: owner.clone(), reason };
        let http = |e: reqwest::Error| failed(e.without_url().to_string());
        let url = base.join(&format!("{owner}.tar")).map_err(|e| failed(e.to_string()))?;
        let mut response = self.http.get(url).send().await.map_err(http)?;
        if !response.status().is_success() {
            return Err(failed(format!("HTTP {}", response.status())));
        }
        let part = path.with_extension("part");
        let unwritable = |source| FetchError::Write { path: part.clone(), source };
        let mut file = tokio::fs::File::create(&part).await.map_err(unwritable)?;
        let mut written = 0;
        while let Some(chunk) = response.chunk().await.map_err(http)? {
            written += chunk.len() as u64;
            if written > MAX_BYTES {
                return Err(failed(format!("it is longer than {MAX_BYTES} bytes")));
            }
            file.write_all(&chunk).await.map_err(unwritable)?;
        }
        file.flush().await.map_err(unwritable)?;
        tokio::fs::rename(&part, path).await.map_err(unwritable)?;
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};

    fn sources(base: &str, folder: &Path) -> Result<Sources, FetchError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Sources::new(folder.join("none"), vec![base.parse().unwrap()], folder.join("fetched"))
    }

    #[tokio::test]
    async fn a_file_is_streamed_to_the_owner_s_folder() {
        let body = vec![7u8; 300_000];
        let answer = body.clone();
        let router = Router::new().route("/data/a.tar", get(move || async move { answer }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/data", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let folder = tempfile::tempdir().unwrap();
        let sources = sources(&base, folder.path()).unwrap();
        let owner = "a".parse().unwrap();
        let fetched = sources.fetch(&owner).await.unwrap().unwrap();
        assert_eq!(std::fs::read(fetched.join("0.tar")).unwrap(), body);
        let error = sources.fetch(&"b".parse().unwrap()).await.unwrap_err();
        assert!(
            error.to_string().contains("HTTP 404") && !error.to_string().contains("127.0.0.1"),
            "{error}"
        );
    }

    #[test]
    fn only_https_is_fetched() {
        let folder = Path::new("/nonexistent");
        for base in ["http://example.org/", "ftp://example.org/", "file:///etc/"] {
            assert!(matches!(sources(base, folder), Err(FetchError::Scheme(_))), "{base}");
        }
        assert!(sources("https://example.org/x", folder).is_ok());
    }
}
