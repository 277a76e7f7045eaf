//! dstack's guest-agent API (v0): `POST /<Method>` with a JSON object, or `GET` with a query; bytes
//! are lowercase hex (an `0x` is accepted), structured answers are JSON inside strings, and errors
//! are 400 with `{"error"}`. Of the v1 API it has `POST /v1/GetKey`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cohort_attestation::dev::{AppKeys, DevGuest};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// No request of this API comes near it.
const MAX_BODY_BYTES: usize = 64 << 10;

struct Agent {
    guest: DevGuest,
    keys: AppKeys,
    info: Value,
    vm_config: String,
}

/// The fields that any method takes; the others are ignored, as the real agent does.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    path: String,
    purpose: String,
    algorithm: String,
    report_data: String,
}

/// An error of the API, in the words of the real agent where it has them.
struct Refused(String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, Json(json!({ "error": self.0 }))).into_response()
    }
}

/// All routes for one guest.
pub(crate) fn router(guest: &DevGuest) -> anyhow::Result<Router> {
    let vm_config = vm_config();
    let agent =
        Agent { keys: guest.app_keys()?, info: info(guest, &vm_config)?, guest: guest.clone(), vm_config };
    // The rest of v1, such as `/v1/Info`, is 404, as at an agent without v1.
    let mut router = Router::new();
    if guest.gpus().is_some() {
        router = router.route("/v1/AttestGpu", post(attest_gpu));
    }
    Ok(router
        .route("/{method}", get(by_query).post(by_body))
        .route("/v1/GetKey", post(get_key_v1))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Arc::new(agent)))
}

async fn by_query(
    State(agent): State<Arc<Agent>>,
    Path(method): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Json<Value>, Refused> {
    let field = |name: &str| query.get(name).cloned().unwrap_or_default();
    let request = Request {
        path: field("path"),
        purpose: field("purpose"),
        algorithm: field("algorithm"),
        report_data: field("report_data"),
    };
    agent.answer(&method, &request)
}

async fn by_body(
    State(agent): State<Arc<Agent>>,
    Path(method): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    let request = if body.is_empty() {
        Request::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| Refused(error.to_string()))?
    };
    agent.answer(&method, &request)
}

#[derive(Deserialize)]
struct KeyRequestV1 {
    domain: String,
    algorithm: String,
}

async fn get_key_v1(State(agent): State<Arc<Agent>>, body: Bytes) -> Result<Json<Value>, Refused> {
    let request: KeyRequestV1 = serde_json::from_slice(&body).map_err(|error| Refused(error.to_string()))?;
    let derived = agent.keys.get_key_v1(&request.domain, &request.algorithm);
    let (derived, public_key) = derived.map_err(|error| Refused(error.to_string()))?;
    Ok(Json(json!({
        "key": hex::encode(derived.key),
        "public_key": hex::encode(public_key),
        "signature_chain": derived.signature_chain.map(hex::encode),
    })))
}

/// dstack's v1 `AttestGpu`: evidence of all GPUs for a nonce of exactly 32 bytes.
async fn attest_gpu(State(agent): State<Arc<Agent>>, body: Bytes) -> Result<Json<Value>, Refused> {
    #[derive(Deserialize)]
    struct AttestGpu {
        nonce: String,
    }
    let request: AttestGpu = serde_json::from_slice(&body).map_err(|error| Refused(error.to_string()))?;
    let mut nonce = [0u8; 32];
    hex::decode_to_slice(&request.nonce, &mut nonce)
        .map_err(|_| Refused("gpu attestation nonce must be 32 bytes".to_owned()))?;
    let gpus = agent.guest.gpus().ok_or_else(|| Refused("no GPU".to_owned()))?;
    let evidence = gpus.collected(&nonce).map_err(|error| Refused(error.to_string()))?;
    Ok(Json(json!({ "bundles": [{
        "vendor": "nvidia",
        "format": "nvidia-nvattest-collect-evidence-json-v1",
        "evidence": hex::encode(evidence),
    }] })))
}

impl Agent {
    fn answer(&self, method: &str, request: &Request) -> Result<Json<Value>, Refused> {
        match method {
            "Info" => Ok(self.info.clone()),
            "GetKey" => self.get_key(request),
            "GetQuote" => self.get_quote(request),
            "Version" => Ok(json!({
                "version": "0.5.0",
                "rev": concat!("cohort-dev-guest-agent-", env!("CARGO_PKG_VERSION")),
            })),
            other => Err(Refused(format!("Service not found: {other}"))),
        }
        .map(Json)
    }

    fn get_key(&self, request: &Request) -> Result<Value, Refused> {
        let Request { path, purpose, algorithm, .. } = request;
        let derived =
            self.keys.get_key(path, purpose, algorithm).map_err(|error| Refused(error.to_string()))?;
        Ok(json!({
            "key": hex::encode(derived.key),
            "signature_chain": derived.signature_chain.map(hex::encode),
        }))
    }

    fn get_quote(&self, request: &Request) -> Result<Value, Refused> {
        let report_data = report_data(&request.report_data)?;
        let quote = self.guest.quote(&report_data).map_err(|error| Refused(error.to_string()))?;
        Ok(json!({
            "quote": hex::encode(quote),
            "event_log": self.guest.event_log_json(),
            "report_data": hex::encode(report_data),
            "vm_config": self.vm_config,
            "attestation": "",
        }))
    }
}

/// Up to 64 bytes, padded with zeros at the end.
fn report_data(text: &str) -> Result<[u8; 64], Refused> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let bytes = hex::decode(digits).map_err(|_| Refused("Invalid hex in report_data".to_owned()))?;
    let mut report_data = [0u8; 64];
    report_data
        .get_mut(..bytes.len())
        .ok_or_else(|| Refused("Report data is too long".to_owned()))?
        .copy_from_slice(&bytes);
    Ok(report_data)
}

fn vm_config() -> String {
    json!({
        "os_image_hash": DevGuest::os_image_hash(), "cpu_count": 1, "memory_size": 2_147_483_648_u64,
    })
    .to_string()
}

fn info(guest: &DevGuest, vm_config: &str) -> anyhow::Result<Value> {
    let identity = guest.identity();
    let measurements = guest.measurements();
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &measurements.rtmrs;
    // A guest does not know the machine's PPID: the real agent answers the hash of nothing.
    let device_id = hex::encode(Sha256::digest(b""));
    let event_log: Value = serde_json::from_str(guest.event_log_json())?;
    let tcb_info = json!({
        "mrtd": measurements.mrtd,
        "rtmr0": rtmr0,
        "rtmr1": rtmr1,
        "rtmr2": rtmr2,
        "rtmr3": rtmr3,
        "mr_aggregated": guest.mr_aggregated(),
        "os_image_hash": identity.os_image_hash,
        "compose_hash": identity.compose_hash,
        "device_id": device_id,
        "event_log": event_log,
        "app_compose": guest.app_compose(),
    });
    let app_compose: Value = serde_json::from_str(guest.app_compose())
        .map_err(|error| anyhow::anyhow!("the app-compose file is not JSON: {error}"))?;
    let key_provider = &identity.key_provider;
    Ok(json!({
        "app_id": identity.app_id,
        "instance_id": identity.instance_id,
        "app_cert": guest.app_certificate_pem()?,
        "tcb_info": serde_json::to_string_pretty(&tcb_info)?,
        "app_name": app_compose.get("name").and_then(Value::as_str).unwrap_or_default(),
        "device_id": device_id,
        "mr_aggregated": guest.mr_aggregated(),
        "os_image_hash": identity.os_image_hash,
        "key_provider_info": json!({ "name": key_provider.name(), "id": key_provider.id() }).to_string(),
        "compose_hash": identity.compose_hash,
        "vm_config": vm_config,
        "cloud_vendor": "",
        "cloud_product": "",
    }))
}
