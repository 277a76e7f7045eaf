//! The REST interface for analysts. Spec: `docs/spec/agent-api.md`.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cohort_protocol::{ids::RunId, release::Refusal};
use serde_json::json;

use crate::{
    machine::Machine,
    run::{Agent, RunBody, RunError, RunState, Stage},
};

/// Requests larger than this are refused.
const MAX_BODY_BYTES: usize = 64 << 10;

/// All routes.
pub fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/v1/attestation", get(attestation))
        .route("/v1/preflight", post(preflight))
        .route("/v1/runs", post(open).get(list))
        .route("/v1/runs/{id}", get(show))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(agent)
}

/// A refusal with its HTTP status: the one place that maps codes to statuses.
struct Refused(Refusal);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.code.as_str() {
            "malformed_request" | "invalid_owners" | "compose_mismatch" => StatusCode::BAD_REQUEST,
            "bad_signature" | "not_an_analyst" => StatusCode::FORBIDDEN,
            "run_not_here" | "dataset_unknown" | "not_an_owner" | "proposal_unknown" => StatusCode::NOT_FOUND,
            // Ours, and those of the KMS that are about what it depends on: asking again may help.
            "busy"
            | "timeout"
            | "chain_unavailable"
            | "kms_unreachable"
            | "guest_agent_unavailable"
            | "indexer_unreachable"
            | "indexer_stale"
            | "indexer_fork"
            | "rpc_unreachable"
            | "rpc_wrong_chain"
            | "head_stale"
            | "endpoints_disagree"
            | "chain_too_short"
            | "log_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "internal" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::CONFLICT,
        };
        (status, Json(self.0)).into_response()
    }
}

impl From<RunError> for Refused {
    fn from(error: RunError) -> Self {
        Self(error.refusal())
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        Self(Refusal {
            code: "malformed_request".to_owned(),
            message: rejection.body_text(),
            hint: Some(
                "send {compose, owners, analyst, nonce, deadline, signature}; `cohort run` makes it"
                    .to_owned(),
            ),
        })
    }
}

type Body = Result<Json<RunBody>, JsonRejection>;

/// Public facts, which the console shows from wherever it is served.
async fn attestation(State(agent): State<Arc<Agent>>) -> impl IntoResponse {
    let facts = Json(json!({
        "app": agent.chain().app(),
        "chain_id": agent.chain().chain_id(),
        "compose_hash": agent.compose_hash(),
        "receipt_key": agent.receipt_key(),
        "gas_account": agent.chain().gas_account(),
        "machine": Machine::now(),
    }));
    ([(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], facts)
}

async fn preflight(State(agent): State<Arc<Agent>>, body: Body) -> Result<Response, Refused> {
    let _place = agent.place()?;
    let prepared = agent.prepare(&body?.0).await?;
    agent.preflight(&prepared).await?;
    Ok(Json(json!({ "code": "allow", "message": "the run is open and the KMS releases its keys" }))
        .into_response())
}

async fn open(State(agent): State<Arc<Agent>>, body: Body) -> Result<Response, Refused> {
    let _place = agent.place()?;
    let prepared = agent.prepare(&body?.0).await?;
    agent.check_open(&prepared).await?;
    let id = prepared.run_id();
    if agent.admit(id) {
        tokio::spawn(Arc::clone(&agent).execute(prepared));
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "run_id": id, "stage": Stage::Queued }))).into_response())
}

async fn list(State(agent): State<Arc<Agent>>) -> Json<serde_json::Value> {
    let entry = |(id, state): (RunId, RunState)| match state {
        RunState::Running(stage) => json!({ "run_id": id, "state": "running", "stage": stage }),
        RunState::Done(_) => json!({ "run_id": id, "state": "done" }),
        RunState::Failed(refusal) => json!({ "run_id": id, "state": "failed", "code": refusal.code }),
    };
    let runs: Vec<_> = agent.runs().into_iter().map(entry).collect();
    Json(json!({ "runs": runs }))
}

async fn show(State(agent): State<Arc<Agent>>, Path(id): Path<String>) -> Result<Response, Refused> {
    let unknown = |message: String| {
        Refused(Refusal {
            code: "run_not_here".to_owned(),
            message,
            hint: Some("runs are known to the agent that ran them, until it restarts".to_owned()),
        })
    };
    let id: RunId = id.parse().map_err(|e: cohort_protocol::ids::IdError| unknown(e.to_string()))?;
    match agent.state(id) {
        None => Err(unknown(format!("run {id} is not known to this agent"))),
        Some(RunState::Running(stage)) => {
            Ok((StatusCode::ACCEPTED, Json(json!({ "run_id": id, "stage": stage }))).into_response())
        }
        Some(RunState::Failed(refusal)) => Err(Refused(refusal)),
        Some(RunState::Done(result)) => Ok(Json(result.as_ref()).into_response()),
    }
}
