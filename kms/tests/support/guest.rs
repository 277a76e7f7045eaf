//! dstack's guest agent, as far as a KMS asks it, for a machine of the development platform.

use std::{path::Path, sync::Arc};

use axum::{Json, Router, extract::State, routing::post};
use cohort_attestation::dev::DevGuest;
use serde_json::{Value, json};
use tokio::net::UnixListener;

/// Serves it on a Unix socket until the test ends.
pub(crate) fn serve(socket: &Path, router: Router) {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
}

/// All calls.
pub(crate) fn router(guest: DevGuest) -> Router {
    Router::new()
        .route("/GetKey", post(get_key))
        .route("/v1/GetKey", post(get_key_v1))
        .route("/GetQuote", post(get_quote))
        .route("/Info", post(info))
        .with_state(Arc::new(guest))
}

async fn get_key(State(guest): State<Arc<DevGuest>>, Json(body): Json<Value>) -> Json<Value> {
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    let key = guest.app_keys().unwrap().get_key(&text("path"), &text("purpose"), &text("algorithm")).unwrap();
    Json(json!({ "key": hex::encode(key.key), "signature_chain": [] }))
}

async fn get_key_v1(State(guest): State<Arc<DevGuest>>, Json(body): Json<Value>) -> Json<Value> {
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    let (key, _) = guest.app_keys().unwrap().get_key_v1(&text("domain"), &text("algorithm")).unwrap();
    Json(json!({ "key": hex::encode(key.key) }))
}

async fn get_quote(State(guest): State<Arc<DevGuest>>, Json(body): Json<Value>) -> Json<Value> {
    let data = hex::decode(body["report_data"].as_str().unwrap()).unwrap().try_into().unwrap();
    let quote = hex::encode(guest.quote(&data).unwrap());
    Json(json!({ "quote": quote, "event_log": guest.event_log_json(), "report_data": "", "vm_config": "" }))
}

async fn info(State(guest): State<Arc<DevGuest>>) -> Json<Value> {
    Json(
        json!({ "app_id": guest.identity().app_id, "tcb_info": json!({ "app_compose": guest.app_compose() }).to_string() }),
    )
}
