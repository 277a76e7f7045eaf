//! Pages of other origins (the Fetch standard's CORS protocol): they read nothing unless the operator lets them. What
//! is mirrored is public where the chain is; a page in the browser of somebody inside must not carry out what is not.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::Api;

/// What a page may send along with its question, and read beside the answer.
const PREFLIGHT: [(HeaderName, HeaderValue); 3] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD")),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("If-None-Match, Last-Event-ID")),
    (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600")),
];

/// Marks answers to pages of the origins that may read them.
pub(super) async fn shared(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let origin = admitted(&api.allow_origins, request.headers());
    let asks_first = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match origin {
        Some(_) if asks_first => (StatusCode::NO_CONTENT, PREFLIGHT).into_response(),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("ETag"));
    }
    if !api.allow_origins.is_empty() {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

fn admitted(origins: &[String], headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    let admits = |one: &String| one == "*" || one.as_bytes() == origin.as_bytes();
    origins.iter().any(admits).then(|| origin.clone())
}
