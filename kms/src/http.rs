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
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::Semaphore;

use crate::{
    denial::{Class, Denial},
    limits::{Limits, Peer, RELEASE_COST, REQUEST_COST},
    openapi as s,
    service::Kms,
};

/// Longest request body in bytes.
pub const BODY_BYTES_MAX: usize = 2 << 20;
/// Longest message of a replica in bytes.
pub const REPLICA_BYTES_MAX: usize = 4 << 10;
/// Longest time for one request, its body's arrival included. Seconds.
pub const REQUEST_SECONDS: u64 = 25;
/// Release requests in work at once: bounds memory to this many bodies.
pub const RELEASES_AT_ONCE: usize = 64;
/// Other requests in work at once.
pub const REQUESTS_AT_ONCE: usize = 256;

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let status = match self.class() {
            _ if self == Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Class::Malformed => StatusCode::BAD_REQUEST,
            Class::Denied => StatusCode::FORBIDDEN,
            Class::Limited => StatusCode::TOO_MANY_REQUESTS,
            Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = (status, Json(self.refusal())).into_response();
        if let Some(seconds) = self.retry_after_seconds() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
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
        .route("/v1/certify", post(certify))
        .route("/v1/onboard", post(onboard))
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
    // Their messages are authenticated and small, and each release of a replica makes some.
    let unlimited = Gate { limits: Arc::new(Limits::new(None)), ..gate(REQUESTS_AT_ONCE, REQUEST_COST) };
    let replicas = Router::new()
        .route("/v1/replica/vote", post(replica_vote))
        .route("/v1/replica/votes", post(replica_votes))
        .layer(DefaultBodyLimit::max(REPLICA_BYTES_MAX))
        .layer(middleware::from_fn_with_state(unlimited, limit));
    Router::new()
        .route("/healthz", get(health))
        .merge(releases)
        .merge(others)
        .merge(replicas)
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
pub(crate) async fn release(State(kms): State<Arc<Kms>>, request: Request) -> Result<Response, Denial> {
    let request = body_of(request, "release request").await?;
    let answer = kms.release(request).await.inspect_err(|denial| told("release denied", denial))?;
    tracing::info!(target: "kms", log_index = answer.log_index, "released");
    Ok(not_stored(answer))
}

/// Decides on the same request, and certifies its receipt key without handing out keys.
#[utoipa::path(post, path = "/v1/certify", request_body = s::ReleaseRequest, responses(
    (status = 200, description = "Certified.", body = s::CertifyAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn certify(State(kms): State<Arc<Kms>>, request: Request) -> Result<Response, Denial> {
    let request = body_of(request, "release request").await?;
    let answer = kms.certify(request).await.inspect_err(|denial| told("certificate denied", denial))?;
    tracing::info!(target: "kms", log_index = answer.log_index, "certified");
    Ok(not_stored(answer))
}

/// Hands the root to a new replica on a machine like this one's.
#[utoipa::path(post, path = "/v1/onboard", request_body = s::OnboardRequest, responses(
    (status = 200, description = "Handed over.", body = s::OnboardAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn onboard(State(kms): State<Arc<Kms>>, request: Request) -> Result<Response, Denial> {
    let request = body_of(request, "onboarding request").await?;
    let answer = kms.onboard(request).await.inspect_err(|denial| told("onboarding denied", denial))?;
    tracing::warn!(target: "kms", "the root went to a new replica");
    Ok(not_stored(answer))
}

/// Another replica asks for this one's vote.
#[utoipa::path(post, path = "/v1/replica/vote", request_body = s::VoteRequest, responses(
    (status = 200, description = "The vote.", body = s::VoteAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn replica_vote(State(kms): State<Arc<Kms>>, request: Request) -> Result<Response, Denial> {
    let request = body_of(request, "message of a replica").await?;
    Ok(not_stored(kms.replicas()?.answer_vote(request).await?))
}

/// Another replica that has lost its votes asks for this one's.
#[utoipa::path(post, path = "/v1/replica/votes", request_body = s::VotesRequest, responses(
    (status = 200, description = "Some of them.", body = s::VotesAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn replica_votes(State(kms): State<Arc<Kms>>, request: Request) -> Result<Response, Denial> {
    let request = body_of(request, "message of a replica").await?;
    Ok(not_stored(kms.replicas()?.answer_votes(&request)?))
}

/// The body as JSON of this kind.
async fn body_of<T: DeserializeOwned>(request: Request, what: &str) -> Result<T, Denial> {
    let body = Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Denial::TooLarge,
        _ => Denial::Malformed { what: "the body did not arrive whole".to_owned() },
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| Denial::Malformed { what: format!("the body is no {what}: {error}") })
}

fn not_stored(answer: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response()
}

fn told(what: &str, denial: &Denial) {
    tracing::info!(target: "kms", code = denial.code(), "{what}");
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
