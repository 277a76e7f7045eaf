//! Parts of a request: path segments and query parameters.

use std::{collections::BTreeMap, str::FromStr};

use alloy::primitives::Address;
use cohort_protocol::ids::IdError;
use serde::Deserialize;

use super::ApiError;
use crate::{store::Cursor, value::Name};

/// Items of a page, unless asked for.
const DEFAULT_LIMIT: u32 = 100;
/// Most items of a page.
const MAX_LIMIT: u32 = 500;

/// A request's query string.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    pub(super) fn required(&self, name: &'static str) -> Result<&str, ApiError> {
        let missing = || ApiError::BadRequest { name, reason: "missing query parameter".to_owned() };
        self.0.get(name).map(String::as_str).ok_or_else(missing)
    }

    /// `after`: only what comes after this place.
    pub(super) fn after(&self) -> Result<Option<Cursor>, ApiError> {
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

fn parsed<T: FromStr<Err = String>>(name: &'static str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|reason| ApiError::BadRequest { name, reason })
}
