//! Parts of a request: path segments and query parameters.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    sync::LazyLock,
};

use alloy::primitives::Address;
use axum::{
    extract::{FromRequestParts, MatchedPath, Path, Query, rejection::PathRejection},
    http::request::Parts,
};
use cohort_protocol::ids::IdError;
use serde::de::{DeserializeOwned, IntoDeserializer as _};

use utoipa::openapi::{
    RefOr,
    path::{Parameter, ParameterIn, PathItem},
};

use super::ApiError;
use crate::{store::Bookmark, value::Name};

/// Items of a page, unless asked for.
const DEFAULT_LIMIT: u32 = 100;
/// Most items of a page.
const MAX_LIMIT: u32 = 500;

/// A request's query string.
#[derive(Debug)]
pub(super) struct Parameters(BTreeMap<String, String>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let bad = |reason: String| ApiError::BadRequest { name: "query", reason };
        let Query(pairs) =
            Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map_err(|e| bad(e.body_text()))?;
        let path = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let known = documented().get(path);
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs {
            // One that is misspelt would change nothing, unnoticed.
            if !known.is_some_and(|known| known.contains(&name)) {
                let name: String = name.chars().take(40).collect();
                let there = known.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(bad(format!("there is no parameter {name:?} here, only: {there}")));
            }
            // Two values of one name: which one counts must not be a matter of taste.
            if parameters.insert(name, value).is_some() {
                return Err(bad("a parameter is given twice".to_owned()));
            }
        }
        Ok(Self(parameters))
    }
}

/// Names of the query parameters of each path, from the document.
fn documented() -> &'static BTreeMap<String, BTreeSet<String>> {
    static DOCUMENTED: LazyLock<BTreeMap<String, BTreeSet<String>>> = LazyLock::new(|| {
        let names = |item: PathItem| {
            let parameters = item.get.and_then(|get| get.parameters).into_iter().flatten();
            let in_query = |one| match one {
                RefOr::T(Parameter { name, parameter_in: ParameterIn::Query, .. }) => Some(name),
                _ => None,
            };
            parameters.filter_map(in_query).collect()
        };
        super::openapi().paths.paths.into_iter().map(|(path, item)| (path, names(item))).collect()
    });
    &DOCUMENTED
}

/// The variable parts of a request's path.
#[derive(Debug)]
pub(super) struct Segments<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let bad = |e: PathRejection| ApiError::BadRequest { name: "path", reason: e.body_text() };
        Path::<T>::from_request_parts(parts, state).await.map(|Path(segments)| Self(segments)).map_err(bad)
    }
}

impl Parameters {
    pub(super) fn required(&self, name: &'static str) -> Result<&str, ApiError> {
        let missing = || ApiError::BadRequest { name, reason: "missing query parameter".to_owned() };
        self.0.get(name).map(String::as_str).ok_or_else(missing)
    }

    /// A parameter that is one word of a few, if given.
    pub(super) fn one_of<T: DeserializeOwned>(
        &self,
        name: &'static str,
        words: &'static str,
    ) -> Result<Option<T>, ApiError> {
        let word = |text: &String| T::deserialize(text.as_str().into_deserializer());
        let read = self.0.get(name).map(word).transpose();
        read.map_err(|_: serde::de::value::Error| ApiError::BadRequest {
            name,
            reason: format!("must be one of {words}"),
        })
    }

    pub(super) fn optional(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// `after`: only what comes after this place.
    pub(super) fn after(&self) -> Result<Option<Bookmark>, ApiError> {
        self.0.get("after").map(|text| parsed("after", text)).transpose()
    }

    /// `limit`: most items of the page.
    pub(super) fn limit(&self) -> Result<u32, ApiError> {
        match self.0.get("limit").map(|text| text.parse()) {
            None => Ok(DEFAULT_LIMIT),
            Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
            Some(_) => {
                Err(ApiError::BadRequest { name: "limit", reason: format!("must be 1 to {MAX_LIMIT}") })
            }
        }
    }
}

/// A 32-byte identifier.
pub(super) fn hash<T: FromStr<Err = IdError>>(name: &'static str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|e: IdError| ApiError::BadRequest { name, reason: e.to_string() })
}

/// A contract's address.
pub(super) fn address(name: &'static str, text: &str) -> Result<Address, ApiError> {
    let reason = || "must be an address: 0x and 40 hex digits".to_owned();
    let prefixed = text.starts_with("0x");
    let address = text.parse().ok().filter(|_| prefixed);
    address.ok_or_else(|| ApiError::BadRequest { name, reason: reason() })
}

/// An owner's id: its label, or its word as hex.
pub(super) fn name(name: &'static str, text: &str) -> Result<Name, ApiError> {
    parsed(name, text)
}

pub(super) fn parsed<T: FromStr<Err = String>>(name: &'static str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|reason| ApiError::BadRequest { name, reason })
}
