//! The HTTP interface: routes, limits on what an anonymous caller can send, and the one mapping from reasons to
//! status codes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest as _, Query, Request, State, rejection::JsonRejection},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cohort_protocol::release::{LeaseRequest, ReceiptQuestion};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::{
    denial::{Class, Denial},
    limits::{Limits, Peer, RELEASE_COST, REQUEST_COST},
    openapi as s,
    service::Kms,
};

/// Longest request body in bytes.
pub const BODY_BYTES_MAX: usize = 2 << 20;
/// Longest time for one request, its body's arrival included. Seconds.
pub const REQUEST_SECONDS: u64 = 25;
/// Release requests in work at once: bounds memory to this many bodies.
pub const RELEASES_AT_ONCE: usize = 64;
/// Other requests in work at once.
pub const REQUESTS_AT_ONCE: usize = 256;

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let status = match self.class() {
            Class::Malformed => StatusCode::BAD_REQUEST,
            Class::Denied => StatusCode::FORBIDDEN,
            Class::Limited => StatusCode::TOO_MANY_REQUESTS,
            Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.refusal())).into_response()
    }
}

/// All routes, under these limits on rates.
pub fn router(kms: Arc<Kms>, limits: Limits) -> Router {
    let limits = Arc::new(limits);
    let gate = |places, cost| Gate {
        places: Arc::new(Semaphore::new(places)),
        limits: limits.clone(),
        cost,
        started: Instant::now(),
    };
    let releases = Router::new()
        .route("/v1/release", post(release))
        .layer(middleware::from_fn_with_state(gate(RELEASES_AT_ONCE, RELEASE_COST), limit));
    let others = Router::new()
        .route("/v1/root", get(root))
        .route("/v1/challenge", post(challenge))
        .route("/v1/receipt", post(receipt))
        .route("/v1/lease", post(lease))
        .route("/v1/log", get(log))
        .route("/v1/log/head", get(log_head))
        .route("/readyz", get(ready))
        .layer(middleware::from_fn_with_state(gate(REQUESTS_AT_ONCE, REQUEST_COST), limit));
    Router::new()
        .route("/healthz", get(health))
        .merge(releases)
        .merge(others)
        .fallback(async || not_here(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || not_here(StatusCode::METHOD_NOT_ALLOWED))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(kms)
}

/// Whether the process runs.
#[utoipa::path(get, path = "/healthz", responses(
    (status = 200, description = "It does.", body = Object),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn health() -> Response {
    Json(serde_json::json!({ "status": "ok" })).into_response()
}

fn not_here(status: StatusCode) -> Response {
    let denial = Denial::Malformed { what: "no such route and method".to_owned() };
    (status, Json(denial.refusal())).into_response()
}

/// What lets a request in.
#[derive(Clone)]
struct Gate {
    places: Arc<Semaphore>,
    limits: Arc<Limits>,
    cost: f64,
    started: Instant,
}

/// Takes tokens and a place before anything of the body is read, and ends what takes too long.
async fn limit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    // A router without our listener, as in-process tests use it, has no peers.
    let peer = peer.unwrap_or_else(|| Peer::of(std::net::Ipv4Addr::UNSPECIFIED.into()));
    if !gate.limits.take(peer, gate.cost, gate.started.elapsed()) {
        return Denial::RateLimited.into_response();
    }
    let own = (gate.cost >= RELEASE_COST).then(|| gate.limits.place(peer));
    if matches!(own, Some(None)) {
        return Denial::RateLimited.into_response();
    }
    let Ok(_place) = gate.places.try_acquire() else {
        return Denial::Busy.into_response();
    };
    let limit = Duration::from_secs(REQUEST_SECONDS);
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => Denial::Timeout { seconds: REQUEST_SECONDS }.into_response(),
    }
}

/// The root to seal to, and where its keys are.
#[utoipa::path(get, path = "/v1/root", responses(
    (status = 200, description = "Statement and evidence.", body = s::RootAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn root(State(kms): State<Arc<Kms>>) -> Result<Response, Denial> {
    Ok(Json(kms.root().await?).into_response())
}

/// A challenge for one release request.
#[utoipa::path(post, path = "/v1/challenge", responses(
    (status = 200, description = "A fresh one.", body = s::Challenge),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn challenge(State(kms): State<Arc<Kms>>) -> Result<Response, Denial> {
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((no_store, Json(kms.challenge().await?)).into_response())
}

/// Whether everything is there that a release needs. Whatever is missing, it is this service that is not ready: 503.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, description = "It is.", body = Object),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn ready(State(kms): State<Arc<Kms>>) -> Response {
    match kms.ready().await {
        Ok(()) => Json(serde_json::json!({ "status": "ready" })).into_response(),
        Err(denial) => (StatusCode::SERVICE_UNAVAILABLE, Json(denial.refusal())).into_response(),
    }
}

/// Decides on a request and, if allowed, hands out its keys.
#[utoipa::path(post, path = "/v1/release", request_body = s::ReleaseRequest, responses(
    (status = 200, description = "Released.", body = s::ReleaseAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn release(State(kms): State<Arc<Kms>>, request: Request) -> Response {
    let body = match Bytes::from_request(request, &()).await {
        Ok(body) => body,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let what = format!("the body is longer than {BODY_BYTES_MAX} bytes");
            return (StatusCode::PAYLOAD_TOO_LARGE, Json(Denial::Malformed { what }.refusal()))
                .into_response();
        }
        Err(_) => {
            return Denial::Malformed { what: "the body did not arrive whole".to_owned() }.into_response();
        }
    };
    match answer(&kms, &body).await {
        Ok(response) => response,
        Err(denial) => {
            tracing::info!(target: "kms", code = denial.code(), "release denied");
            denial.into_response()
        }
    }
}

async fn answer(kms: &Arc<Kms>, body: &[u8]) -> Result<Response, Denial> {
    let request = serde_json::from_slice(body)
        .map_err(|error| Denial::Malformed { what: format!("the body is no release request: {error}") })?;
    let answer = kms.release(request).await?;
    tracing::info!(target: "kms", log_index = answer.log_index, "released");
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((no_store, Json(answer)).into_response())
}

/// Whether the KMS's own endpoints show a run's receipt.
#[utoipa::path(post, path = "/v1/receipt", request_body = s::ReceiptQuestion, responses(
    (status = 200, description = "They do.", body = s::ReceiptAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn receipt(
    State(kms): State<Arc<Kms>>,
    question: Result<Json<ReceiptQuestion>, JsonRejection>,
) -> Result<Response, Denial> {
    let Json(question) =
        question.map_err(|error| Denial::Malformed { what: format!("no receipt question: {error}") })?;
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((no_store, Json(kms.receipt(&question).await?)).into_response())
}

/// Lets a run go on, if everything still allows it.
#[utoipa::path(post, path = "/v1/lease", request_body = s::LeaseRequest, responses(
    (status = 200, description = "It may.", body = s::LeaseAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn lease(
    State(kms): State<Arc<Kms>>,
    request: Result<Json<LeaseRequest>, JsonRejection>,
) -> Result<Response, Denial> {
    let Json(request) =
        request.map_err(|error| Denial::Malformed { what: format!("no lease request: {error}") })?;
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    let answer = kms.renew(&request).await.inspect_err(|denial| {
        tracing::info!(target: "kms", run = %request.run_id, code = denial.code(), "lease not renewed");
    })?;
    Ok((no_store, Json(answer)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogQuery {
    #[serde(default)]
    from: u64,
}

/// Where the release log ends, signed.
#[utoipa::path(get, path = "/v1/log/head", responses(
    (status = 200, description = "The end.", body = s::SignedHead),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn log_head(State(kms): State<Arc<Kms>>) -> Result<Response, Denial> {
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((no_store, Json(kms.log_head().await?)).into_response())
}

/// The release log.
#[utoipa::path(get, path = "/v1/log", params(("from" = Option<u64>, Query, description = "Index of the first entry wanted.")), responses(
    (status = 200, description = "A part of it.", body = s::LogPage),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn log(
    State(kms): State<Arc<Kms>>,
    query: Result<Query<LogQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Denial> {
    let Query(query) =
        query.map_err(|_| Denial::Malformed { what: "from: a number is needed".to_owned() })?;
    let log = kms.log().clone();
    let page =
        tokio::task::spawn_blocking(move || log.page(query.from)).await.map_err(|_| Denial::Internal)?;
    let page = page.map_err(|error| {
        tracing::error!(target: "kms", error = &error as &dyn std::error::Error, "release log failed");
        Denial::LogUnavailable
    })?;
    Ok(Json(page).into_response())
}
