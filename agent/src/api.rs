//! The REST interface for analysts. Spec: `docs/spec/agent-api.md`; `docs/openapi/agent.json` is generated from here.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use cohort_protocol::{ids::RunId, release::Refusal};
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, OpenApi, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    machine::Machine,
    run::{Agent, RunBody, RunError, RunState, Stage},
};

/// Requests larger than this are refused.
const MAX_BODY_BYTES: usize = 64 << 10;

#[derive(OpenApi)]
#[openapi(info(
    title = "Cohort agent",
    description = "Runs of one study. Errors are {code, message, hint} with a stable code: docs/spec/agent-api.md."
))]
struct Document;

fn documented() -> OpenApiRouter<Arc<Agent>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(attestation))
        .routes(routes!(preflight))
        .routes(routes!(open, list))
        .routes(routes!(show))
        .routes(routes!(events))
}

/// The OpenAPI document, as committed in `docs/openapi/agent.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

/// All routes.
pub fn router(agent: Arc<Agent>) -> Router {
    let (router, document) = documented().split_for_parts();
    router
        .route("/healthz", get(|| async { "ok" }))
        .route("/v1/openapi.json", get(|| async { Json(document) }))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(agent)
}

/// What the agent says of itself. Hints for people; what counts is in each result.
#[derive(Serialize, ToSchema)]
struct Attestation {
    /// The consortium's contract.
    #[schema(value_type = String)]
    app: alloy::primitives::Address,
    /// EIP-155 chain id.
    chain_id: u64,
    /// SHA-256 of the app-compose bytes that this CVM was booted with.
    #[schema(value_type = String)]
    compose_hash: cohort_protocol::ids::ComposeHash,
    /// Address of the key that signs receipts, made at this boot.
    #[schema(value_type = String)]
    receipt_key: alloy::primitives::Address,
    /// Account that pays for transactions, derived by the guest agent.
    #[schema(value_type = String)]
    gas_account: alloy::primitives::Address,
    /// What it has, wei, decimal; null while no endpoint answers.
    gas_balance: Option<String>,
    /// Whether it has too little for one more run at the current price; null while no endpoint answers.
    gas_low: Option<bool>,
    /// What the VM is and how busy, coarsely.
    machine: Machine,
}

/// A run as lists, progress and event streams show it.
#[derive(Serialize, ToSchema, Clone, PartialEq)]
struct RunView {
    #[schema(value_type = String)]
    run_id: RunId,
    /// `running`, `done` or `failed`.
    state: &'static str,
    /// What is under way, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
    /// Why it ended without a result.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

impl RunView {
    fn of(run_id: RunId, state: &RunState) -> Self {
        let view = Self { run_id, state: "running", stage: None, code: None };
        match state {
            RunState::Running(stage) => Self { stage: Some(*stage), ..view },
            RunState::Done(_) => Self { state: "done", ..view },
            RunState::Failed(refusal) => Self { state: "failed", code: Some(refusal.code.clone()), ..view },
        }
    }
}

/// Runs of this boot, in the order in which they came.
#[derive(Serialize, ToSchema)]
struct Runs {
    runs: Vec<RunView>,
    /// The `after` of the next page; null on the last one.
    #[schema(value_type = Option<String>)]
    next: Option<RunId>,
}

/// Which part of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Most entries, 1 to 500.
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: usize,
    /// `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<RunId>,
}

const MAX_LIMIT: usize = 500;

const fn default_limit() -> usize {
    100
}

/// A run was accepted, or is under way.
#[derive(Serialize, ToSchema)]
struct Accepted {
    #[schema(value_type = String)]
    run_id: RunId,
    stage: Stage,
}

/// Every error.
#[derive(ToSchema)]
#[allow(dead_code, reason = "the shape of `Refusal`, which lives in a crate without HTTP")]
struct Problem {
    /// Stable, snake_case.
    code: String,
    /// What was refused, and why.
    message: String,
    /// What to do about it.
    hint: Option<String>,
}

/// A refusal with its HTTP status: the one place that maps codes to statuses.
struct Refused(Refusal);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.code.as_str() {
            "malformed_request" | "invalid_owners" | "owner_missing" | "compose_mismatch" => {
                StatusCode::BAD_REQUEST
            }
            "bad_signature" | "not_an_analyst" => StatusCode::FORBIDDEN,
            "run_not_here" | "dataset_unknown" | "not_an_owner" | "proposal_unknown" => StatusCode::NOT_FOUND,
            // Ours, and those of the KMS that are about what it depends on: asking again may help.
            "busy"
            | "timeout"
            | "chain_unavailable"
            | "kms_unreachable"
            | "guest_agent_unavailable"
            | "gas_low"
            | "dataset_unreachable"
            | "state_unwritable"
            | "script_unavailable"
            | "noise_unavailable"
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

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        bad_page(rejection.body_text())
    }
}

fn bad_page(message: String) -> Refused {
    Refused(Refusal {
        code: "malformed_request".to_owned(),
        message,
        hint: Some(format!("limit is 1 to {MAX_LIMIT}, after is the next of the page before")),
    })
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

/// Who this agent is: public facts, which the console shows from wherever it is served.
#[utoipa::path(get, path = "/v1/attestation", responses((status = 200, body = Attestation)))]
async fn attestation(State(agent): State<Arc<Agent>>) -> impl IntoResponse {
    let gas = agent.chain().gas().await.ok();
    let facts = Json(Attestation {
        app: agent.chain().app(),
        chain_id: agent.chain().chain_id(),
        compose_hash: agent.compose_hash(),
        receipt_key: agent.receipt_key(),
        gas_account: agent.chain().gas_account(),
        gas_balance: gas.map(|(have, _)| have.to_string()),
        gas_low: gas.map(|(have, need)| have < need),
        machine: agent.machine(),
    });
    ([(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], facts)
}

/// What is missing for this run, if anything. Debits nothing.
#[utoipa::path(post, path = "/v1/preflight", request_body = RunBody, responses(
    (status = 200, description = "Nothing is missing."),
    (status = "default", body = Problem),
))]
async fn preflight(State(agent): State<Arc<Agent>>, body: Body) -> Result<Response, Refused> {
    let _place = agent.place()?;
    let prepared = agent.prepare(&body?.0).await?;
    agent.preflight(&prepared).await?;
    Ok(Json(json!({ "code": "allow", "message": "the run is open and the KMS releases its keys" }))
        .into_response())
}

/// Opens a run that a listed analyst signed. The same request again is the same run.
#[utoipa::path(post, path = "/v1/runs", request_body = RunBody, responses(
    (status = 202, body = Accepted),
    (status = "default", body = Problem),
))]
async fn open(State(agent): State<Arc<Agent>>, body: Body) -> Result<Response, Refused> {
    let _place = agent.place()?;
    let prepared = agent.prepare(&body?.0).await?;
    agent.check_open(&prepared).await?;
    let id = prepared.run_id();
    if agent.admit(id) {
        tokio::spawn(Arc::clone(&agent).execute(prepared));
    }
    Ok((StatusCode::ACCEPTED, Json(Accepted { run_id: id, stage: Stage::Queued })).into_response())
}

/// Runs of this boot, page by page.
#[utoipa::path(get, path = "/v1/runs", params(Page), responses(
    (status = 200, body = Runs),
    (status = "default", body = Problem),
))]
async fn list(
    State(agent): State<Arc<Agent>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Runs>, Refused> {
    let Query(Page { limit, after }) = page?;
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(bad_page(format!("limit {limit} is not 1 to {MAX_LIMIT}")));
    }
    let (runs, next) = agent.page(after, limit).ok_or_else(|| {
        Refused(Refusal {
            code: "cursor_gone".to_owned(),
            message: "the run that the page before ended with is not known to this agent".to_owned(),
            hint: Some("the agent restarted; read the list again from its first page".to_owned()),
        })
    })?;
    Ok(Json(Runs { runs: runs.iter().map(|(id, state)| RunView::of(*id, state)).collect(), next }))
}

/// The result in its Sign-RPC envelope (docs/spec/sign-rpc.md), once its receipt is on chain.
#[utoipa::path(get, path = "/v1/runs/{run_id}", params(("run_id" = String, Path)), responses(
    (status = 200, description = "The Sign-RPC envelope.", body = serde_json::Value),
    (status = 202, body = Accepted),
    (status = "default", body = Problem),
))]
async fn show(State(agent): State<Arc<Agent>>, Path(id): Path<String>) -> Result<Response, Refused> {
    let (id, state) = known(&agent, &id)?;
    match state {
        RunState::Running(stage) => {
            Ok((StatusCode::ACCEPTED, Json(Accepted { run_id: id, stage })).into_response())
        }
        RunState::Failed(refusal) => Err(Refused(refusal)),
        RunState::Done(result) => Ok(Json(result.as_ref()).into_response()),
    }
}

/// Progress as server-sent events named `run`, from the state as it is to the end: stages, nothing of the data.
#[utoipa::path(get, path = "/v1/runs/{run_id}/events", params(("run_id" = String, Path)), responses(
    (status = 200, description = "Events whose data is a run.", body = RunView, content_type = "text/event-stream"),
    (status = "default", body = Problem),
))]
async fn events(
    State(agent): State<Arc<Agent>>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    let (id, _) = known(&agent, &id)?;
    Ok(Sse::new(progress(agent, id)).keep_alive(KeepAlive::default()))
}

fn progress(agent: Arc<Agent>, id: RunId) -> impl Stream<Item = Result<Event, Infallible>> {
    let changes = agent.changes();
    stream::unfold((agent, changes, None::<RunView>), move |(agent, mut changes, last)| async move {
        if last.as_ref().is_some_and(|view| view.state != "running") {
            return None;
        }
        loop {
            let view = RunView::of(id, &agent.state(id)?);
            if last.as_ref() != Some(&view) {
                let event = Event::default().event("run").json_data(&view).ok()?;
                return Some((Ok(event), (agent, changes, Some(view))));
            }
            changes.changed().await.ok()?;
        }
    })
}

fn known(agent: &Agent, id: &str) -> Result<(RunId, RunState), Refused> {
    let unknown = |message: String| {
        Refused(Refusal {
            code: "run_not_here".to_owned(),
            message,
            hint: Some("runs are known to the agent that ran them, until it restarts".to_owned()),
        })
    };
    let id: RunId = id.parse().map_err(|e: cohort_protocol::ids::IdError| unknown(e.to_string()))?;
    let state = agent.state(id).ok_or_else(|| unknown(format!("run {id} is not known to this agent")))?;
    Ok((id, state))
}

#[cfg(test)]
mod tests;
