//! The HTTP interface: routes, limits on what an anonymous caller can send, and the one mapping from reasons to
//! status codes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes, HttpBody as _},
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cohort_protocol::release::{LeaseRequest, ReceiptQuestion};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    denial::{Class, Denial},
    limits::{Full, Limits, Peer, Place, Places, RELEASE_COST, REQUEST_COST},
    metrics::{Code, Metrics},
    openapi as s,
    service::Kms,
};

/// Longest body of a release request in bytes.
pub const RELEASE_BYTES_MAX: usize = 2 << 20;
/// Longest body of any other request in bytes.
pub const BODY_BYTES_MAX: usize = 4 << 10;
/// Bytes of all bodies together.
pub const ALL_BODIES_BYTES_MAX: usize = 128 << 20;
/// Set aside for a body that is announced, in bytes; most have less.
const ROOM_AT_ONCE: usize = 64 << 10;
/// Longest time for a body to arrive. Seconds.
pub const BODY_SECONDS: u64 = 10;
/// Longest time for one request from then on. Seconds.
pub const REQUEST_SECONDS: u64 = 25;
/// Release requests in work at once.
pub const RELEASES_AT_ONCE: usize = 64;
/// Other requests in work at once.
pub const REQUESTS_AT_ONCE: usize = 256;

impl From<Full> for Denial {
    fn from(full: Full) -> Self {
        match full {
            Full::ForOne => Self::RateLimited,
            Full::ForAll => Self::Busy,
        }
    }
}

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
        response.extensions_mut().insert(Code(self.code().to_owned()));
        if self == Self::TooLarge {
            // What of the body still comes is no further request.
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        if let Some(seconds) = self.retry_after_seconds() {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// All routes, under these limits on rates.
pub fn router(kms: Arc<Kms>, limits: Limits) -> Router {
    let (limits, bodies) = (Arc::new(limits), Places::new(ALL_BODIES_BYTES_MAX));
    let metrics = Arc::new(Metrics::default());
    let gate = |places, body_max, cost| Gate {
        places: Places::new(places),
        bodies: bodies.clone(),
        body_max,
        limits: limits.clone(),
        cost,
        started: Instant::now(),
    };
    let release_gate = gate(RELEASES_AT_ONCE, RELEASE_BYTES_MAX, RELEASE_COST);
    let releases = Router::new()
        .route("/v1/release", post(release))
        .route("/v1/certify", post(certify))
        .route("/v1/onboard", post(onboard))
        .layer(middleware::from_fn_with_state(release_gate, limit));
    let other_gate = || gate(REQUESTS_AT_ONCE, BODY_BYTES_MAX, REQUEST_COST);
    let others = Router::new()
        .route("/v1/root", get(root))
        .route("/v1/challenge", post(challenge))
        .route("/v1/receipt", post(receipt))
        .route("/v1/lease", post(lease))
        .route("/v1/collateral/{fmspc}/{ca}", get(collateral))
        .route("/v1/log", get(log))
        .route("/v1/log/head", get(log_head))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text).layer(Extension(metrics.clone())))
        .layer(middleware::from_fn_with_state(other_gate(), limit));
    // Their messages are authenticated and small, and each release of a replica makes some.
    let replica_gate = Gate { limits: Arc::new(Limits::new(None)), ..other_gate() };
    let replicas = Router::new()
        .route("/v1/replica/vote", post(replica_vote))
        .route("/v1/replica/votes", post(replica_votes))
        .layer(middleware::from_fn_with_state(replica_gate, limit));
    Router::new()
        .route("/healthz", get(health))
        .merge(releases)
        .merge(others)
        .merge(replicas)
        .fallback(async || not_here(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || not_here(StatusCode::METHOD_NOT_ALLOWED))
        .layer(DefaultBodyLimit::disable()) // the gates have limits of their own
        .layer(middleware::from_fn_with_state(metrics, count))
        .with_state(kms)
}

/// Followed by a family.
const COLLATERAL: &str = "/v1/collateral/";

/// What is counted by name; the rest as `other`.
const ROUTES: [&str; 15] = [
    "/v1/release",
    "/v1/certify",
    "/v1/challenge",
    "/v1/lease",
    "/v1/receipt",
    "/v1/root",
    "/v1/log",
    "/v1/log/head",
    COLLATERAL,
    "/v1/onboard",
    "/v1/replica/vote",
    "/v1/replica/votes",
    "/readyz",
    "/healthz",
    "/metrics",
];

async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_path = |route: &&str| *route == path || *route == COLLATERAL && path.starts_with(COLLATERAL);
    let route = ROUTES.into_iter().find(is_path).unwrap_or("other");
    let started = Instant::now();
    let response = next.run(request).await;
    let code = response.extensions().get::<Code>().map_or("ok", |code| code.0.as_str());
    metrics.count(route, code, started.elapsed());
    response
}

/// Counts and states, for Prometheus.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "Text format 0.0.4.", body = String, content_type = "text/plain"),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn metrics_text(
    State(kms): State<Arc<Kms>>,
    Extension(metrics): Extension<Arc<Metrics>>,
) -> Response {
    let text = metrics.render(&kms.states().await);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
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
    let mut response = denial.into_response();
    *response.status_mut() = status;
    response
}

/// What lets a request in.
#[derive(Clone)]
struct Gate {
    places: Arc<Places>,
    /// Counted in bytes.
    bodies: Arc<Places>,
    body_max: usize,
    limits: Arc<Limits>,
    cost: f64,
    started: Instant,
}

impl Gate {
    /// The whole body, and the room that it takes.
    async fn body(&self, peer: Peer, mut body: Body) -> Result<(Vec<u8>, Place), Denial> {
        if body.size_hint().lower() > self.body_max as u64 {
            return Err(self.too_large(body));
        }
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or_default();
        let mut bytes = Vec::with_capacity(announced.min(ROOM_AT_ONCE));
        let mut room = self.bodies.take(peer, 0)?;
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|_| Denial::Malformed { what: "the body did not arrive whole".to_owned() })?;
            let Some(data) = frame.data_ref() else { continue };
            if bytes.len() + data.len() > self.body_max {
                return Err(self.too_large(body));
            }
            room.more(data.len())?;
            bytes.extend_from_slice(data);
        }
        Ok((bytes, room))
    }

    /// Refuses at once, and throws away what still arrives, up to twice what may: a client that reads no answer before it
    /// has sent all would be told of a broken connection instead.
    fn too_large(&self, mut body: Body) -> Denial {
        let mut left = Some(2 * self.body_max);
        tokio::spawn(tokio::time::timeout(Duration::from_secs(BODY_SECONDS), async move {
            while let Some(some) = left
                && let Some(Ok(frame)) = body.frame().await
            {
                left = some.checked_sub(frame.data_ref().map_or(0, Bytes::len));
            }
        }));
        Denial::TooLarge
    }
}

/// Takes tokens before anything of the body is read, and a place once it is there: whoever sends slowly has none. Ends
/// what takes too long.
async fn limit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    // A router without our listener, as in-process tests use it, has no peers.
    let peer = peer.unwrap_or_else(|| Peer::of(std::net::Ipv4Addr::UNSPECIFIED.into()));
    if !gate.limits.take(peer, gate.cost, gate.started.elapsed()) {
        return Denial::RateLimited.into_response();
    }
    let (head, body) = request.into_parts();
    let (body, _room) =
        match tokio::time::timeout(Duration::from_secs(BODY_SECONDS), gate.body(peer, body)).await {
            Ok(Ok(body)) => body,
            Ok(Err(denial)) => return denial.into_response(),
            Err(_elapsed) => {
                let what = format!("the body did not arrive in {BODY_SECONDS} seconds");
                return Denial::Malformed { what }.into_response();
            }
        };
    let _place = match gate.places.take(peer, 1) {
        Ok(place) => place,
        Err(full) => return Denial::from(full).into_response(),
    };
    let request = Request::from_parts(head, body.into());
    match tokio::time::timeout(Duration::from_secs(REQUEST_SECONDS), next.run(request)).await {
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
    Ok(not_stored(kms.challenge().await?))
}

/// Whether everything is there that a release needs. Whatever is missing, it is this service that is not ready: 503.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, description = "It is.", body = Object),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn ready(State(kms): State<Arc<Kms>>) -> Response {
    match kms.ready().await {
        Ok(()) => Json(serde_json::json!({ "status": "ready" })).into_response(),
        Err(denial) => {
            let mut response = denial.into_response();
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    }
}

/// Collateral of a platform family, as Intel signed it, for agents that have none of their own.
#[utoipa::path(get, path = "/v1/collateral/{fmspc}/{ca}", params(
    ("fmspc" = String, Path, description = "12 hex digits."),
    ("ca" = String, Path, description = "`platform` or `processor`: which of Intel's CAs certified the machine's key."),
), responses(
    (status = 200, description = "dcap-qvl's `QuoteCollateralV3`, valid now.", body = Object),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn collateral(
    State(kms): State<Arc<Kms>>,
    Path((fmspc, ca)): Path<(String, String)>,
    peer: Option<Extension<Peer>>,
) -> Result<Response, Denial> {
    Ok(Json(kms.collateral(&fmspc, &ca, peer.map(|peer| peer.0)).await?).into_response())
}

/// Decides on a request and, if allowed, hands out its keys.
#[utoipa::path(post, path = "/v1/release", request_body = s::ReleaseRequest, responses(
    (status = 200, description = "Released.", body = s::ReleaseAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn release(State(kms): State<Arc<Kms>>, body: Bytes) -> Result<Response, Denial> {
    let request = parsed(&body, "release request")?;
    let answer = kms.release(request).await.inspect_err(|denial| told("release denied", denial))?;
    tracing::info!(target: "kms", log_index = answer.log_index, "released");
    Ok(not_stored(answer))
}

/// Decides on the same request, and certifies its receipt key without handing out keys.
#[utoipa::path(post, path = "/v1/certify", request_body = s::ReleaseRequest, responses(
    (status = 200, description = "Certified.", body = s::CertifyAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn certify(State(kms): State<Arc<Kms>>, body: Bytes) -> Result<Response, Denial> {
    let request = parsed(&body, "release request")?;
    let answer = kms.certify(request).await.inspect_err(|denial| told("certificate denied", denial))?;
    tracing::info!(target: "kms", log_index = answer.log_index, "certified");
    Ok(not_stored(answer))
}

/// Hands the root to a new replica on a machine like this one's.
#[utoipa::path(post, path = "/v1/onboard", request_body = s::OnboardRequest, responses(
    (status = 200, description = "Handed over.", body = s::OnboardAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn onboard(
    State(kms): State<Arc<Kms>>,
    peer: Option<Extension<Peer>>,
    body: Bytes,
) -> Result<Response, Denial> {
    let request = parsed(&body, "onboarding request")?;
    let answer = kms.onboard(request, peer.map(|peer| peer.0)).await;
    let answer = answer.inspect_err(|denial| told("onboarding denied", denial))?;
    tracing::warn!(target: "kms", "the root went to a new replica");
    Ok(not_stored(answer))
}

/// Another replica asks for this one's vote.
#[utoipa::path(post, path = "/v1/replica/vote", request_body = s::VoteRequest, responses(
    (status = 200, description = "The vote.", body = s::VoteAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn replica_vote(State(kms): State<Arc<Kms>>, body: Bytes) -> Result<Response, Denial> {
    let request = parsed(&body, "message of a replica")?;
    Ok(not_stored(kms.replicas()?.answer_vote(request).await?))
}

/// Another replica that has lost its votes asks for this one's.
#[utoipa::path(post, path = "/v1/replica/votes", request_body = s::VotesRequest, responses(
    (status = 200, description = "Some of them.", body = s::VotesAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn replica_votes(State(kms): State<Arc<Kms>>, body: Bytes) -> Result<Response, Denial> {
    let request = parsed(&body, "message of a replica")?;
    Ok(not_stored(kms.replicas()?.answer_votes(&request)?))
}

/// The body as JSON of this kind. What is wrong with it is told briefly: the error may quote it.
fn parsed<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, Denial> {
    serde_json::from_slice(body).map_err(|error| {
        let error: String = error.to_string().chars().take(200).collect();
        Denial::Malformed { what: format!("the body is no {what}: {error}") }
    })
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
pub(crate) async fn receipt(State(kms): State<Arc<Kms>>, body: Bytes) -> Result<Response, Denial> {
    let question: ReceiptQuestion = parsed(&body, "receipt question")?;
    Ok(not_stored(kms.receipt(&question).await?))
}

/// Lets a run go on, if everything still allows it.
#[utoipa::path(post, path = "/v1/lease", request_body = s::LeaseRequest, responses(
    (status = 200, description = "It may.", body = s::LeaseAnswer),
    (status = "default", description = "Refused, with its code.", body = s::Refusal),
))]
pub(crate) async fn lease(State(kms): State<Arc<Kms>>, body: Bytes) -> Result<Response, Denial> {
    let request: LeaseRequest = parsed(&body, "lease request")?;
    let answer = kms.renew(&request).await.inspect_err(|denial| {
        tracing::info!(target: "kms", run = %request.run_id, code = denial.code(), "lease not renewed");
    })?;
    Ok(not_stored(answer))
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
    Ok(not_stored(kms.log_head().await?))
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
