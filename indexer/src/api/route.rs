//! The calls, in the order of the documentation.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use cohort_protocol::chain::ReleaseDecisions;
use serde_json::json;
use utoipa::IntoParams;

use super::{
    Api, ApiError,
    answer::{
        Answer, App, Apps, Cohorts, Dataset, Datasets, Kms, PostedReceipt, Proposal, Proposals, Readiness,
        Receipts, Run, Runs, Status, Timeline, next,
    },
    assets,
    cohort::{Cohort, CohortStatus, Filter, Met},
    page,
    query::{self, Parameters, Segments, address, hash},
    stream,
};
use crate::{
    decision::{self, Question, ReleaseRows},
    event::AppEvent,
    metrics, schema as s,
    store::Kinds,
    view::{AppState, DatasetState, RegistryState, RunState},
};

/// Most questions of one call of `release-decisions`.
const QUESTIONS_MAX: usize = 16;

type Shared = State<Arc<Api>>;
type Answered<T> = Result<Answer<T>, ApiError>;

/// Which page of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by `Parameters`
struct Page {
    /// Most items of the page.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next` of the page before.
    #[param(value_type = Option<s::Bookmark>)]
    after: Option<String>,
}

/// Which cohorts.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by `Filter`
struct CohortFilter {
    /// Only those that meet the first criterion so.
    owners: Option<Met>,
    /// Only those that meet the second criterion so.
    jurisdictions: Option<Met>,
    /// Only those that meet the third criterion so.
    grades: Option<Met>,
    /// Only live or only forming ones.
    status: Option<CohortStatus>,
}

/// The arguments of `releaseDecision`.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by `Parameters`
struct ReleaseQuestion {
    /// Which proposal.
    #[param(value_type = s::Hash)]
    proposal: String,
    /// The compose hash that the CVM proved.
    #[param(value_type = s::Hash)]
    compose: String,
    /// Whose key.
    #[param(value_type = s::Label)]
    owner: String,
    /// Of which dataset.
    #[param(value_type = s::Hash)]
    dataset: String,
    /// For which run.
    #[param(value_type = s::Hash)]
    run: String,
}

/// The arguments of several `releaseDecision`s, separated by commas: the first of each, the second of each, and so on.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, style = Form)]
#[allow(dead_code)] // read by `Parameters`
struct ReleaseQuestions {
    /// Which proposals.
    #[param(explode = false, min_items = 1, max_items = 16)]
    proposal: Vec<s::Hash>,
    /// The compose hashes that the CVMs proved.
    #[param(explode = false, min_items = 1, max_items = 16)]
    compose: Vec<s::Hash>,
    /// Whose keys.
    #[param(explode = false, min_items = 1, max_items = 16)]
    owner: Vec<s::Label>,
    /// Of which datasets.
    #[param(explode = false, min_items = 1, max_items = 16)]
    dataset: Vec<s::Hash>,
    /// For which runs.
    #[param(explode = false, min_items = 1, max_items = 16)]
    run: Vec<s::Hash>,
}

/// Where the stream starts, and what of it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // read by `Parameters`
struct StreamFrom {
    /// Id of the last event that the client has; `number@hash` of a position is one too. Without it: from the start.
    #[param(value_type = Option<s::StreamId>)]
    after: Option<String>,
    /// Only events of this app, and its registration.
    #[param(value_type = Option<s::Address>)]
    app: Option<String>,
}

/// The process serves.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "It does.")))]
pub(super) async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

/// Whether the mirror keeps up with the chain, and how far it is behind.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, description = "It does.", body = Readiness),
    (status = 503, description = "It does not.", body = Readiness),
))]
pub(super) async fn readyz(State(api): Shared) -> Result<impl IntoResponse, ApiError> {
    let readiness = api.readiness().await?;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, [(header::CACHE_CONTROL, "no-store")], Json(readiness)))
}

/// Prometheus metrics, text format 0.0.4.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "Metrics.", body = String, content_type = "text/plain"),
))]
pub(super) async fn metrics(State(api): Shared) -> Result<impl IntoResponse, ApiError> {
    let text = metrics::render(&api.readiness().await?, &api);
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    Ok(([kind, (header::CACHE_CONTROL, "no-store")], text))
}

/// This interface as OpenAPI 3.1.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, description = "OpenAPI 3.1.")))]
pub(super) async fn openapi() -> impl IntoResponse {
    Json(super::openapi())
}

/// What is mirrored, and how far.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, description = "Status.", body = Answer<Status>)))]
pub(super) async fn status(State(api): Shared) -> Answered<Status> {
    let mut view = api.view().await?;
    let apps = view.registered().await?;
    let status = Status {
        registry: view.positions.source.registry,
        synced: api.synced(),
        lag_seconds: api.lag().map(|lag| lag.as_secs()),
        apps: apps.len(),
        confirmations: api.confirmations,
        version: env!("CARGO_PKG_VERSION"),
        console_connect: api.console_connect.clone(),
    };
    Ok(view.answer(status).untagged())
}

/// The registry: KMS roots by epoch, allowed systems, images and devices.
#[utoipa::path(get, path = "/v1/kms", responses((status = 200, description = "Registry.", body = Answer<Kms>)))]
pub(super) async fn kms(State(api): Shared) -> Answered<Kms> {
    let mut view = api.view().await?;
    let (registry, at) = (view.positions.source.registry, view.at());
    let kms = RegistryState::load(&mut view.snapshot, registry, at).await?;
    Ok(view.answer(Kms { registry, kms }))
}

/// The directory: every consortium against the three criteria. A filtered page may be short before the end.
#[utoipa::path(get, path = "/v1/cohorts", params(Page, CohortFilter), responses(
    (status = 200, description = "A page of cohorts.", body = Answer<Cohorts>),
))]
pub(super) async fn cohorts(State(api): Shared, query: Parameters) -> Answered<Cohorts> {
    let filter = Filter::from_query(&query)?;
    let mut view = api.view().await?;
    let rows = view.registrations(&query).await?;
    let mut cohorts = Vec::new();
    for (app, _) in view.first_registrations(&rows).await? {
        let configuration = view.configuration(app).await?;
        let state = &configuration.state;
        if state.supported() {
            let datasets = view.all_datasets(app).await?;
            let live = view.any_live(&configuration).await?;
            cohorts.extend(Some(Cohort::of(app, state, &datasets, live)).filter(|it| filter.admits(it)));
        }
    }
    Ok(view.answer(Cohorts { cohorts, next: next(&rows, query.limit()?) }))
}

/// Registered apps.
#[utoipa::path(get, path = "/v1/apps", params(Page), responses(
    (status = 200, description = "A page of apps.", body = Answer<Apps>),
))]
pub(super) async fn apps(State(api): Shared, page: Parameters) -> Answered<Apps> {
    let mut view = api.view().await?;
    let rows = view.registrations(&page).await?;
    let mut apps = Vec::new();
    for (app, registered) in view.first_registrations(&rows).await? {
        apps.push(view.app(app, registered).await?);
    }
    Ok(view.answer(Apps { apps, next: next(&rows, page.limit()?) }))
}

/// One app: owners, threshold, analysts, boot rules.
#[utoipa::path(get, path = "/v1/apps/{app}", params(("app" = s::Address, Path)), responses(
    (status = 200, description = "The answer.", body = Answer<App>),
))]
pub(super) async fn app(State(api): Shared, Segments(app): Segments<String>) -> Answered<App> {
    let (mut view, app, registered) = api.view_of(&app).await?;
    let body = view.app(app, registered).await?;
    Ok(view.answer(body))
}

/// Recipes with their quorum state.
#[utoipa::path(get, path = "/v1/apps/{app}/proposals", params(("app" = s::Address, Path), Page), responses(
    (status = 200, description = "The answer.", body = Answer<Proposals>),
))]
pub(super) async fn proposals(
    State(api): Shared,
    Segments(app): Segments<String>,
    page: Parameters,
) -> Answered<Proposals> {
    let (mut view, app, _) = api.view_of(&app).await?;
    let rows = view.page::<AppEvent>(app, Kinds::One("proposal_created"), &page).await?;
    let configuration = view.configuration(app).await?;
    let mut proposals = Vec::new();
    for row in &rows {
        if let AppEvent::ProposalCreated { proposal_id, .. } = row.event {
            proposals.extend(view.proposal(&configuration, proposal_id).await?);
        }
    }
    Ok(view.answer(Proposals { proposals, next: next(&rows, page.limit()?) }))
}

/// One recipe with its quorum state; also one that was revoked before anybody approved it.
#[utoipa::path(get, path = "/v1/apps/{app}/proposals/{proposal}", params(("app" = s::Address, Path), ("proposal" = s::Hash, Path)), responses(
    (status = 200, description = "The answer.", body = Answer<Proposal>),
))]
pub(super) async fn proposal(
    State(api): Shared,
    Segments((app, id)): Segments<(String, String)>,
) -> Answered<Proposal> {
    let id = hash("proposal", &id)?;
    let (mut view, app, _) = api.view_of(&app).await?;
    let configuration = view.configuration(app).await?;
    let body = view.proposal(&configuration, id).await?.ok_or(ApiError::ProposalUnknown(id))?;
    Ok(view.answer(body))
}

/// Registered datasets.
#[utoipa::path(get, path = "/v1/apps/{app}/datasets", params(("app" = s::Address, Path), Page), responses(
    (status = 200, description = "The answer.", body = Answer<Datasets>),
))]
pub(super) async fn datasets(
    State(api): Shared,
    Segments(app): Segments<String>,
    page: Parameters,
) -> Answered<Datasets> {
    let (mut view, app, _) = api.view_of(&app).await?;
    let state = view.app_state(app).await?;
    let rows = view.page::<AppEvent>(app, Kinds::One("dataset_registered"), &page).await?;
    let mut datasets = Vec::new();
    for row in &rows {
        if let AppEvent::DatasetRegistered { dataset_id, .. } = row.event {
            let events =
                DatasetState::rows(&mut view.snapshot, app, dataset_id, view.positions.head.number).await?;
            let dataset = DatasetState::fold(dataset_id, &events, view.at());
            datasets.extend(dataset.map(|dataset| Dataset::of(&state, &dataset)));
        }
    }
    Ok(view.answer(Datasets { datasets, next: next(&rows, page.limit()?) }))
}

/// Runs.
#[utoipa::path(get, path = "/v1/apps/{app}/runs", params(("app" = s::Address, Path), Page), responses(
    (status = 200, description = "The answer.", body = Answer<Runs>),
))]
pub(super) async fn runs(
    State(api): Shared,
    Segments(app): Segments<String>,
    page: Parameters,
) -> Answered<Runs> {
    let (mut view, app, _) = api.view_of(&app).await?;
    let state = view.app_state(app).await?;
    let rows = view.page::<AppEvent>(app, Kinds::One("run_opened"), &page).await?;
    let mut runs = Vec::new();
    for row in &rows {
        if let AppEvent::RunOpened { run_id, .. } = row.event {
            let run = RunState::load(&mut view.snapshot, app, run_id, view.positions.head.number).await?;
            runs.extend(run.map(|run| Run::of(&state, &run)));
        }
    }
    Ok(view.answer(Runs { runs, next: next(&rows, page.limit()?) }))
}

/// One run.
#[utoipa::path(get, path = "/v1/apps/{app}/runs/{run}", params(("app" = s::Address, Path), ("run" = s::Hash, Path)), responses(
    (status = 200, description = "The answer.", body = Answer<Run>),
))]
pub(super) async fn run(
    State(api): Shared,
    Segments((app, id)): Segments<(String, String)>,
) -> Answered<Run> {
    let id = hash("run", &id)?;
    let (mut view, app, _) = api.view_of(&app).await?;
    let state = view.app_state(app).await?;
    let at = view.at();
    let run = RunState::load(&mut view.snapshot, app, id, at).await?.ok_or(ApiError::RunUnknown(id))?;
    Ok(view.answer(Run::of(&state, &run)))
}

/// Receipts.
#[utoipa::path(get, path = "/v1/apps/{app}/receipts", params(("app" = s::Address, Path), Page), responses(
    (status = 200, description = "The answer.", body = Answer<Receipts>),
))]
pub(super) async fn receipts(
    State(api): Shared,
    Segments(app): Segments<String>,
    page: Parameters,
) -> Answered<Receipts> {
    let (mut view, app, _) = api.view_of(&app).await?;
    let rows = view.page::<AppEvent>(app, Kinds::One("receipt_posted"), &page).await?;
    let receipts = rows.iter().filter_map(PostedReceipt::of).collect();
    Ok(view.answer(Receipts { receipts, next: next(&rows, page.limit()?) }))
}

/// The audit trail: every event of the app from its creation on.
#[utoipa::path(get, path = "/v1/apps/{app}/timeline", params(("app" = s::Address, Path), Page), responses(
    (status = 200, description = "The answer.", body = Answer<Timeline>),
))]
pub(super) async fn timeline(
    State(api): Shared,
    Segments(app): Segments<String>,
    page: Parameters,
) -> Answered<Timeline> {
    let (mut view, app, _) = api.view_of(&app).await?;
    let rows = view.page::<AppEvent>(app, Kinds::All, &page).await?;
    let next = next(&rows, page.limit()?);
    Ok(view.answer(Timeline { events: rows, next }))
}

/// Whether a dataset key may be released, at each position. The KMS repeats the decision on the chain.
#[utoipa::path(get, path = "/v1/apps/{app}/release-decision", params(("app" = s::Address, Path), ReleaseQuestion), responses(
    (status = 200, description = "The answer.", body = s::ReleaseDecisions),
))]
pub(super) async fn release_decision(
    State(api): Shared,
    Segments(app): Segments<String>,
    query: Parameters,
) -> Result<impl IntoResponse, ApiError> {
    let decisions = decided(&api, &app, &questions(&query, 1)?).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(decisions.into_iter().next())))
}

/// The same for several datasets, proposals or runs of one app, in the order of the questions and all at the same
/// positions.
#[utoipa::path(get, path = "/v1/apps/{app}/release-decisions", params(("app" = s::Address, Path), ReleaseQuestions), responses(
    (status = 200, description = "The answers.", body = Vec<s::ReleaseDecisions>),
))]
pub(super) async fn release_decisions(
    State(api): Shared,
    Segments(app): Segments<String>,
    query: Parameters,
) -> Result<impl IntoResponse, ApiError> {
    let decisions = decided(&api, &app, &questions(&query, QUESTIONS_MAX)?).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(decisions)))
}

/// One to `most` questions, whose parts are separated by commas.
fn questions(query: &Parameters, most: usize) -> Result<Vec<Question>, ApiError> {
    let list = |name| query.required(name).map(|text| text.split(','));
    let (mut proposals, mut composes) = (list("proposal")?, list("compose")?);
    let (mut owners, mut datasets, mut runs) = (list("owner")?, list("dataset")?, list("run")?);
    let mut questions = Vec::new();
    loop {
        match (proposals.next(), composes.next(), owners.next(), datasets.next(), runs.next()) {
            (None, None, None, None, None) => return Ok(questions),
            (Some(proposal), Some(compose), Some(owner), Some(dataset), Some(run))
                if questions.len() < most =>
            {
                questions.push(Question {
                    proposal: hash("proposal", proposal)?,
                    compose: hash("compose", compose)?,
                    owner: query::name("owner", owner)?,
                    dataset: hash("dataset", dataset)?,
                    run: hash("run", run)?,
                });
            }
            _ => {
                let reason = format!("the five parameters need equally many values, at most {most} of each");
                return Err(ApiError::BadRequest { name: "query", reason });
            }
        }
    }
}

/// The decisions in the order of the questions, all of one state of the mirror.
async fn decided(api: &Api, app: &str, questions: &[Question]) -> Result<Vec<ReleaseDecisions>, ApiError> {
    let app = address("app", app)?;
    if !api.synced() {
        return Err(ApiError::NotSynced);
    }
    let mut view = api.view_in(&api.store.reserved()).await?;
    if app == view.positions.source.registry || view.registered().await?.since(app).is_none() {
        return Err(ApiError::AppUnknown(app));
    }
    let at = view.at();
    let configuration = decision::configuration(&mut view.snapshot, app, at).await?;
    if !AppState::fold(&configuration, at).supported() {
        return Err(ApiError::AppUnsupported(app));
    }
    let mut decisions = Vec::with_capacity(questions.len());
    for question in questions {
        let rows = ReleaseRows::load(&mut view.snapshot, app, &configuration, question, at).await?;
        decisions.push(rows.decisions(question, &view.positions));
    }
    metrics::Counters::add(&api.counters.decisions, decisions.len() as u64);
    Ok(decisions)
}

/// Server-sent events: `log` for each event of the registry and of registered apps, `rewind` where the chain took
/// blocks back, `head` whenever the stream has told everything up to the head. Reconnecting with `Last-Event-ID` goes
/// on without gaps or repeats.
#[utoipa::path(get, path = "/v1/events", params(
    StreamFrom, ("Last-Event-ID" = Option<s::StreamId>, Header, description = "Wins over `after`."),
), responses((status = 200, description = "The stream.", content_type = "text/event-stream", body = String)))]
pub(super) async fn events(
    State(api): Shared,
    headers: HeaderMap,
    query: Parameters,
) -> Result<impl IntoResponse, ApiError> {
    let app = query.optional("app").map(|text| address("app", text)).transpose()?;
    let last = match headers.get("last-event-id").map(|value| value.to_str()) {
        Some(Ok(text)) => Some(text),
        Some(Err(_)) => {
            let reason = "must be an id of this stream".to_owned();
            return Err(ApiError::BadRequest { name: "Last-Event-ID", reason });
        }
        None => query.optional("after"),
    };
    let from = last.map(|text| query::parsed("after", text)).transpose()?;
    stream::open(&api, from.unwrap_or_default(), app).await
}

/// The console, or a plain page where none was built in.
pub(super) async fn index(State(api): Shared) -> Result<Response, ApiError> {
    match assets::index(&api.console_connect) {
        Some(console) => Ok(console),
        None => page::plain(&api).await,
    }
}

/// The plain page, also where a console was built in: it needs no scripts.
pub(super) async fn plain(State(api): Shared) -> Result<Response, ApiError> {
    page::plain(&api).await
}

/// A file of the console.
pub(super) async fn asset(State(api): Shared, method: Method, uri: Uri) -> Result<Response, ApiError> {
    if !matches!(method, Method::GET | Method::HEAD) {
        return Err(ApiError::MethodNotAllowed);
    }
    let path = uri.path().trim_start_matches('/');
    assets::file(path, &api.console_connect).ok_or(ApiError::RouteUnknown)
}
