//! The HTTP interface: routes, limits on what an anonymous caller can send, and the one mapping from reasons to
//! status codes.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest as _, Query, Request, State, rejection::JsonRejection},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cohort_protocol::release::ReceiptQuestion;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::{
    denial::{Class, Denial},
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
            Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.refusal())).into_response()
    }
}

/// All routes.
pub fn router(kms: Arc<Kms>) -> Router {
    let releases = Router::new()
        .route("/v1/release", post(release))
        .layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(RELEASES_AT_ONCE)), limit));
    let others = Router::new()
        .route("/v1/root", get(root))
        .route("/v1/challenge", post(challenge))
        .route("/v1/receipt", post(receipt))
        .route("/v1/log", get(log))
        .route("/readyz", get(ready))
        .layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(REQUESTS_AT_ONCE)), limit));
    Router::new()
        .route("/healthz", get(async || Json(serde_json::json!({ "status": "ok" }))))
        .merge(releases)
        .merge(others)
        .fallback(async || not_here(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || not_here(StatusCode::METHOD_NOT_ALLOWED))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(kms)
}

fn not_here(status: StatusCode) -> Response {
    let denial = Denial::Malformed { what: "no such route and method".to_owned() };
    (status, Json(denial.refusal())).into_response()
}

/// Takes a place before anything of the body is read, and ends what takes too long.
async fn limit(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(_place) = places.try_acquire() else {
        return Denial::Busy.into_response();
    };
    let limit = Duration::from_secs(REQUEST_SECONDS);
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => Denial::Timeout { seconds: REQUEST_SECONDS }.into_response(),
    }
}

async fn root(State(kms): State<Arc<Kms>>) -> Result<Response, Denial> {
    Ok(Json(kms.root().await?).into_response())
}

async fn challenge(State(kms): State<Arc<Kms>>) -> Result<Response, Denial> {
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((no_store, Json(kms.challenge().await?)).into_response())
}

/// Whatever is missing, it is this service that is not ready: 503.
async fn ready(State(kms): State<Arc<Kms>>) -> Response {
    match kms.ready().await {
        Ok(()) => Json(serde_json::json!({ "status": "ready" })).into_response(),
        Err(denial) => (StatusCode::SERVICE_UNAVAILABLE, Json(denial.refusal())).into_response(),
    }
}

async fn release(State(kms): State<Arc<Kms>>, request: Request) -> Response {
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

async fn receipt(
    State(kms): State<Arc<Kms>>,
    question: Result<Json<ReceiptQuestion>, JsonRejection>,
) -> Result<Response, Denial> {
    let Json(question) =
        question.map_err(|error| Denial::Malformed { what: format!("no receipt question: {error}") })?;
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((no_store, Json(kms.receipt(&question).await?)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    #[serde(default)]
    from: u64,
}

async fn log(
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
