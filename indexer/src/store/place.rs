//! Where a mirror is kept.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

/// Where a mirror is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// In a file of its own.
    Sqlite(PathBuf),
    /// On a server that several replicas may share.
    Postgres(ServerUrl),
}

/// A `postgres://` URL; never shown, since it may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(String);

impl ServerUrl {
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://...")
    }
}

impl From<PathBuf> for Database {
    fn from(path: PathBuf) -> Self {
        Self::Sqlite(path)
    }
}

impl FromStr for Database {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.starts_with("postgres://") || text.starts_with("postgresql://") {
            true => Self::Postgres(ServerUrl(text.to_owned())),
            false => Self::Sqlite(text.strip_prefix("sqlite:").unwrap_or(text).into()),
        })
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => write!(f, "{url:?}"),
        }
    }
}
