//! HTTP answers (`docs/spec/indexer-api.md`). Every answer names the head and the confirmed block it holds at.

mod answer;
mod error;
mod page;
mod query;

use std::{sync::Arc, time::Duration};

use alloy::primitives::Address;
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse},
    routing::get,
};
use cohort_protocol::{chain::ReleaseDecisions, decision::decide_proposal};
use serde_json::{Value, json};
use tokio::sync::watch;

pub(crate) use self::answer::{app_json, dataset_json, proposal_json, run_json};
pub use self::error::ApiError;
use self::{
    answer::{Answer, page_json, receipt_json},
    query::{Parameters, Segments, address, hash},
};
use crate::{
    decision::{Question, ReleaseRows},
    event::{AppEvent, RegistryEvent},
    follow::Health,
    store::{By, Kinds, Recorded, Select, Snapshot, Stamp, Store},
    view::{AppState, DatasetState, Positions, ProposalState, RegistryState, RunState},
};

/// What handlers need.
#[derive(Debug, Clone)]
pub struct Api {
    /// The mirror.
    pub store: Store,
    /// Blocks between head and confirmed position.
    pub confirmations: u64,
    /// How long the mirror may be behind and still be ready.
    pub max_lag: Duration,
    /// How following goes.
    pub health: watch::Receiver<Health>,
}

type Shared = State<Arc<Api>>;
type Answered = Result<Json<Value>, ApiError>;

/// All routes.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/readyz", get(readyz))
        .route("/v1/status", get(status))
        .route("/v1/kms", get(kms))
        .route("/v1/apps", get(apps))
        .route("/v1/apps/{app}", get(app))
        .route("/v1/apps/{app}/proposals", get(proposals))
        .route("/v1/apps/{app}/proposals/{proposal}", get(proposal))
        .route("/v1/apps/{app}/datasets", get(datasets))
        .route("/v1/apps/{app}/runs", get(runs))
        .route("/v1/apps/{app}/runs/{run}", get(run))
        .route("/v1/apps/{app}/receipts", get(receipts))
        .route("/v1/apps/{app}/timeline", get(timeline))
        .route("/v1/apps/{app}/release-decision", get(release_decision))
        .fallback(|| async { ApiError::RouteUnknown })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .with_state(Arc::new(api))
}

impl Api {
    /// Seconds since the mirror last held the newest block; `None`: never.
    fn lag(&self) -> Option<Duration> {
        self.health.borrow().caught_up.map(|at| at.elapsed())
    }

    fn synced(&self) -> bool {
        self.lag().is_some_and(|lag| lag <= self.max_lag)
    }

    async fn view(&self) -> Result<View, ApiError> {
        let mut snapshot = self.store.snapshot().await?;
        let positions = Positions::of(&mut snapshot, self.confirmations).await?;
        Ok(View { positions: positions.ok_or(ApiError::NotSynced)?, snapshot })
    }

    /// The view, and the app of the path with its registration.
    async fn view_of(&self, app: &str) -> Result<(View, Address, Stamp), ApiError> {
        let app = address("app", app)?;
        let mut view = self.view().await?;
        let registered = view.registration(app).await?.ok_or(ApiError::AppUnknown(app))?;
        Ok((view, app, registered))
    }
}

/// One consistent state of the mirror and its positions.
struct View {
    snapshot: Snapshot,
    positions: Positions,
}

impl View {
    fn at(&self) -> u64 {
        self.positions.head.number
    }

    fn answer(&self, body: Value) -> Json<Value> {
        Json(Answer::new(&self.positions, body).into_value())
    }

    async fn registration(&mut self, app: Address) -> Result<Option<Stamp>, ApiError> {
        let registry = self.positions.source.registry;
        if app == registry {
            return Ok(None); // its rows are the registry's
        }
        let mut select = Select::new(registry, By::App(app), Kinds::One("app_registered"), self.at());
        select.limit = Some(1);
        let rows: Vec<Recorded<RegistryEvent>> = self.snapshot.events(select).await?;
        Ok(rows.first().map(|row| row.stamp))
    }

    async fn page(
        &mut self,
        app: Address,
        kinds: Kinds<'_>,
        page: &Parameters,
    ) -> Result<Vec<Recorded<AppEvent>>, ApiError> {
        let select = Select::new(app, By::Contract, kinds, self.at()).page(page.after()?, page.limit()?);
        Ok(self.snapshot.events(select).await?)
    }

    async fn app_state(&mut self, app: Address) -> Result<AppState, ApiError> {
        let at = self.at();
        Ok(AppState::load(&mut self.snapshot, app, at).await?)
    }

    async fn all_datasets(&mut self, app: Address) -> Result<Vec<Recorded<AppEvent>>, ApiError> {
        let select = Select::new(app, By::Contract, Kinds::One("dataset_registered"), self.at());
        Ok(self.snapshot.events(select).await?)
    }

    async fn app(&mut self, app: Address, registered: Stamp) -> Result<Value, ApiError> {
        let state = self.app_state(app).await?;
        let datasets = self.all_datasets(app).await?;
        Ok(app_json(app, registered, &state, &datasets))
    }

    async fn proposal(
        &mut self,
        app: Address,
        id: cohort_protocol::ids::ProposalId,
    ) -> Result<Option<Value>, ApiError> {
        let state = self.app_state(app).await?;
        let at = self.at();
        let rows = ProposalState::rows(&mut self.snapshot, app, id, at).await?;
        let [at_head, at_confirmed] = [self.positions.head, self.positions.confirmed].map(|at| {
            let proposal = ProposalState::fold(id, &rows, at.number);
            (at, proposal)
        });
        let confirmed_app = AppState::load(&mut self.snapshot, app, at_confirmed.0.number).await?;
        let decisions = [
            decide_proposal(&state.facts(at_head.0.timestamp), at_head.1.facts().as_ref()),
            decide_proposal(&confirmed_app.facts(at_confirmed.0.timestamp), at_confirmed.1.facts().as_ref()),
        ];
        let (_, proposal) = at_head;
        Ok(proposal.known().then(|| proposal_json(id, &state, &proposal, decisions)))
    }
}

/// Most apps, and most proposals of each, on the page for people.
const PAGE_ITEMS: u32 = 50;

async fn page(State(api): Shared) -> Result<impl IntoResponse, ApiError> {
    let mut view = api.view().await?;
    let registry = view.positions.source.registry;
    let mut select = Select::new(registry, By::Contract, Kinds::One("app_registered"), view.at());
    (select.newest_first, select.limit) = (true, Some(PAGE_ITEMS));
    let registrations: Vec<Recorded<RegistryEvent>> = view.snapshot.events(select).await?;
    let mut apps = Vec::new();
    for row in registrations {
        let RegistryEvent::AppRegistered { app } = row.event else { continue };
        if view.registration(app).await? != Some(row.stamp) {
            continue;
        }
        let mut select = Select::new(app, By::Contract, Kinds::One("proposal_created"), view.at());
        (select.newest_first, select.limit) = (true, Some(PAGE_ITEMS));
        let rows: Vec<Recorded<AppEvent>> = view.snapshot.events(select).await?;
        let mut proposals = Vec::new();
        for row in &rows {
            if let AppEvent::ProposalCreated { proposal_id, .. } = row.event {
                proposals.extend(view.proposal(app, proposal_id).await?);
            }
        }
        apps.push((view.app(app, row.stamp).await?, proposals));
    }
    let html = page::render(&json!(view.positions.head), &apps);
    let policy = (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'");
    Ok(([policy], Html(html)))
}

async fn readyz(State(api): Shared) -> Result<impl IntoResponse, ApiError> {
    let health = api.health.borrow().clone();
    let ready = api.synced();
    let head = api.store.head().await?;
    let body = json!({
        "ready": ready,
        "head": head.map(|head| head.number),
        "chain_head": health.chain_head,
        "lag_seconds": api.lag().map(|lag| lag.as_secs()),
        "last_error": health.last_error,
    });
    Ok((if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)))
}

async fn status(State(api): Shared) -> Answered {
    let mut view = api.view().await?;
    let (registry, at) = (view.positions.source.registry, view.at());
    let apps = view.snapshot.registered_apps(registry, at).await?;
    Ok(view.answer(json!({
        "registry": registry,
        "synced": api.synced(),
        "lag_seconds": api.lag().map(|lag| lag.as_secs()),
        "apps": apps.len(),
    })))
}

async fn kms(State(api): Shared) -> Answered {
    let mut view = api.view().await?;
    let (registry, at) = (view.positions.source.registry, view.at());
    let state = RegistryState::load(&mut view.snapshot, registry, at).await?;
    Ok(view.answer(json!({ "registry": registry, "kms": state })))
}

async fn apps(State(api): Shared, page: Parameters) -> Answered {
    let mut view = api.view().await?;
    let registry = view.positions.source.registry;
    let select = Select::new(registry, By::Contract, Kinds::One("app_registered"), view.at());
    let rows: Vec<Recorded<RegistryEvent>> =
        view.snapshot.events(select.page(page.after()?, page.limit()?)).await?;
    let mut apps = Vec::new();
    for row in &rows {
        let RegistryEvent::AppRegistered { app } = row.event else { continue };
        if view.registration(app).await? == Some(row.stamp) {
            apps.push(view.app(app, row.stamp).await?);
        }
    }
    Ok(view.answer(page_json("apps", apps, &rows, page.limit()?)))
}

async fn app(State(api): Shared, Segments(app): Segments<String>) -> Answered {
    let (mut view, app, registered) = api.view_of(&app).await?;
    let body = view.app(app, registered).await?;
    Ok(view.answer(body))
}

async fn proposals(State(api): Shared, Segments(app): Segments<String>, page: Parameters) -> Answered {
    let (mut view, app, _) = api.view_of(&app).await?;
    let rows = view.page(app, Kinds::One("proposal_created"), &page).await?;
    let mut proposals = Vec::new();
    for row in &rows {
        if let AppEvent::ProposalCreated { proposal_id, .. } = row.event {
            proposals.extend(view.proposal(app, proposal_id).await?);
        }
    }
    Ok(view.answer(page_json("proposals", proposals, &rows, page.limit()?)))
}

async fn proposal(State(api): Shared, Segments((app, id)): Segments<(String, String)>) -> Answered {
    let id = hash("proposal", &id)?;
    let (mut view, app, _) = api.view_of(&app).await?;
    let body = view.proposal(app, id).await?.ok_or(ApiError::ProposalUnknown(id))?;
    Ok(view.answer(body))
}

async fn datasets(State(api): Shared, Segments(app): Segments<String>, page: Parameters) -> Answered {
    let (mut view, app, _) = api.view_of(&app).await?;
    let state = view.app_state(app).await?;
    let rows = view.page(app, Kinds::One("dataset_registered"), &page).await?;
    let mut datasets = Vec::new();
    for row in &rows {
        if let AppEvent::DatasetRegistered { dataset_id, .. } = row.event {
            let events =
                DatasetState::rows(&mut view.snapshot, app, dataset_id, view.positions.head.number).await?;
            let dataset = DatasetState::fold(dataset_id, &events, view.at());
            datasets.extend(dataset.map(|dataset| dataset_json(&state, &dataset)));
        }
    }
    Ok(view.answer(page_json("datasets", datasets, &rows, page.limit()?)))
}

async fn runs(State(api): Shared, Segments(app): Segments<String>, page: Parameters) -> Answered {
    let (mut view, app, _) = api.view_of(&app).await?;
    let state = view.app_state(app).await?;
    let rows = view.page(app, Kinds::One("run_opened"), &page).await?;
    let mut runs = Vec::new();
    for row in &rows {
        if let AppEvent::RunOpened { run_id, .. } = row.event {
            let run = RunState::load(&mut view.snapshot, app, run_id, view.positions.head.number).await?;
            runs.extend(run.map(|run| run_json(&state, &run)));
        }
    }
    Ok(view.answer(page_json("runs", runs, &rows, page.limit()?)))
}

async fn run(State(api): Shared, Segments((app, id)): Segments<(String, String)>) -> Answered {
    let id = hash("run", &id)?;
    let (mut view, app, _) = api.view_of(&app).await?;
    let state = view.app_state(app).await?;
    let at = view.at();
    let run = RunState::load(&mut view.snapshot, app, id, at).await?.ok_or(ApiError::RunUnknown(id))?;
    Ok(view.answer(run_json(&state, &run)))
}

async fn receipts(State(api): Shared, Segments(app): Segments<String>, page: Parameters) -> Answered {
    let (mut view, app, _) = api.view_of(&app).await?;
    let rows = view.page(app, Kinds::One("receipt_posted"), &page).await?;
    let receipts = rows.iter().filter_map(receipt_json).collect();
    Ok(view.answer(page_json("receipts", receipts, &rows, page.limit()?)))
}

async fn timeline(State(api): Shared, Segments(app): Segments<String>, page: Parameters) -> Answered {
    let (mut view, app, _) = api.view_of(&app).await?;
    let rows = view.page(app, Kinds::All, &page).await?;
    let events = rows.iter().map(|row| json!(row)).collect();
    Ok(view.answer(page_json("events", events, &rows, page.limit()?)))
}

async fn release_decision(
    State(api): Shared,
    Segments(app): Segments<String>,
    query: Parameters,
) -> Result<Json<ReleaseDecisions>, ApiError> {
    let question = Question {
        proposal: hash("proposal", query.required("proposal")?)?,
        compose: hash("compose", query.required("compose")?)?,
        owner: query::name("owner", query.required("owner")?)?,
        dataset: hash("dataset", query.required("dataset")?)?,
        run: hash("run", query.required("run")?)?,
    };
    address("app", &app)?;
    if !api.synced() {
        return Err(ApiError::NotSynced);
    }
    let (mut view, app, _) = api.view_of(&app).await?;
    let at = view.at();
    let rows = ReleaseRows::load(&mut view.snapshot, app, &question, at).await?;
    if !rows.app(at).supported() {
        return Err(ApiError::AppUnsupported(app));
    }
    Ok(Json(rows.decisions(&question, &view.positions)))
}
