//! Every refusal of the API: its status, its stable code, and what to do about it.

use alloy::primitives::Address;
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use cohort_protocol::{
    ids::{ProposalId, RunId},
    release::Refusal,
};

use utoipa::openapi::{ContentBuilder, PathItem, Ref, ResponseBuilder};

use crate::store::StoreError;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A part of the path or query is not what it must be.
    #[error("{name}: {reason}")]
    BadRequest {
        /// Which part.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The registry does not name this app.
    #[error("app {0:?} is not registered")]
    AppUnknown(Address),
    /// The registered contract is no `DstackApp` that this version understands.
    #[error("app {0:?} is not a DstackApp that this version understands")]
    AppUnsupported(Address),
    /// No event names this proposal.
    #[error("proposal {0} is not known")]
    ProposalUnknown(ProposalId),
    /// No such run was opened.
    #[error("run {0} is not known")]
    RunUnknown(RunId),
    /// The mirror is not at the chain's head, or has not been seen to be lately.
    #[error("the mirror is behind the chain")]
    NotSynced,
    /// A reorganisation took back the block that a page ended in.
    #[error("after: block {0} is not what it was when the page before was read")]
    CursorGone(u64),
    /// No room for another stream.
    #[error("too many event streams are open")]
    TooManyStreams,
    /// An answer has no JSON; our bug.
    #[error("the answer could not be written")]
    Unwritable(#[source] axum::Error),
    /// No such path.
    #[error("no such path")]
    RouteUnknown,
    /// Only GET is served.
    #[error("only GET is served")]
    MethodNotAllowed,
    /// The database failed; the reason is in the log only.
    #[error("the mirror could not be read")]
    Store(#[from] StoreError),
}

impl ApiError {
    fn parts(&self) -> (StatusCode, &'static str, Option<&'static str>) {
        match self {
            Self::BadRequest { .. } => (StatusCode::BAD_REQUEST, "bad_request", None),
            Self::AppUnknown(_) => (
                StatusCode::NOT_FOUND,
                "app_unknown",
                Some("register it: registerApp(app) of the DstackKms registry"),
            ),
            Self::AppUnsupported(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "app_unsupported", Some("check the app's address"))
            }
            Self::ProposalUnknown(_) => (
                StatusCode::NOT_FOUND,
                "proposal_unknown",
                Some("an owner approves the terms first: cohort approve"),
            ),
            Self::RunUnknown(_) => {
                (StatusCode::NOT_FOUND, "run_unknown", Some("open the run on chain first: cohort run"))
            }
            Self::NotSynced => (
                StatusCode::SERVICE_UNAVAILABLE,
                "not_synced",
                Some("try again soon; GET /readyz tells the reason"),
            ),
            Self::CursorGone(_) => (
                StatusCode::CONFLICT,
                "cursor_gone",
                Some("the chain reorganised; read the list again from its first page"),
            ),
            Self::TooManyStreams => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_streams",
                Some("try again later, or read /v1/apps/{app}/timeline page by page"),
            ),
            Self::Unwritable(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", Some("see the indexer's log"))
            }
            Self::RouteUnknown => {
                (StatusCode::NOT_FOUND, "not_found", Some("paths are in docs/spec/indexer-api.md"))
            }
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", None),
            Self::Store(StoreError::Sql(sqlx::Error::PoolTimedOut)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "busy", Some("try again soon, with a smaller limit"))
            }
            Self::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", Some("see the indexer's log")),
        }
    }
}

/// Adds the refusals to every operation of a path.
pub(super) fn document(item: &mut PathItem) {
    for (range, description) in [("4XX", "A refusal."), ("5XX", "Not now.")] {
        if let Some(operation) = &mut item.get {
            let refusal = ContentBuilder::new().schema(Some(Ref::from_schema_name("Refusal"))).build();
            let response =
                ResponseBuilder::new().description(description).content("application/json", refusal);
            operation.responses.responses.entry(range.to_owned()).or_insert_with(|| response.build().into());
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Store(error) = &self {
            tracing::error!(target: "indexer::api", %error, "request failed");
        }
        let (status, code, hint) = self.parts();
        let refusal =
            Refusal { code: code.to_owned(), message: self.to_string(), hint: hint.map(str::to_owned) };
        (status, Json(refusal)).into_response()
    }
}
