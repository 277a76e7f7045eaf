//! HTTP answers (`docs/spec/indexer-api.md`, `docs/openapi/indexer.json`). Every answer names the head, the confirmed
//! and the finalized block it holds at.

pub mod answer;
mod assets;
pub mod cohort;
mod error;
mod origin;
mod page;
mod query;
mod route;
pub mod stream;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use alloy::primitives::Address;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use cohort_protocol::{
    decision::{AppFacts, Decision, decide_proposal},
    ids::ProposalId,
};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use utoipa::{
    OpenApi, ToSchema,
    openapi::{OpenApi as Document, RefOr, Schema},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use self::answer::{App, Dataset, Proposal, Readiness, Run};
pub use self::error::ApiError;
use self::{
    answer::Answer,
    query::{Parameters, address},
};
use crate::{
    event::{AppEvent, RegistryEvent},
    follow::Health,
    metrics::Counters,
    rpc::Header,
    schema,
    store::{Bookmark, By, Kinds, Recorded, Registered, Select, Snapshot, Stamp, Store, Stored},
    view::{AppState, Positions, ProposalState},
};

/// Most streams of events at the same time.
const MAX_STREAMS: usize = 1_000;

/// Positions, and what they follow from.
pub type KnownPositions = ((Header, Option<Header>), Positions);

/// What handlers need.
#[derive(Debug, Clone)]
pub struct Api {
    /// The mirror.
    pub store: Store,
    /// Blocks between head and confirmed position.
    pub confirmations: u64,
    /// How long the mirror may be behind and still be ready.
    pub max_lag: Duration,
    /// Further origins that the console's pages may connect to, e.g. of an RPC endpoint.
    pub console_connect: Vec<String>,
    /// Origins whose pages may read the answers; `*`: any.
    pub allow_origins: Vec<String>,
    /// How following goes.
    pub health: watch::Receiver<Health>,
    /// Its sender goes away when the service stops.
    pub stopping: watch::Receiver<()>,
    /// What has happened since the start.
    pub counters: Arc<Counters>,
    /// One permit for each open stream.
    pub streams: Arc<Semaphore>,
    /// The positions at this head with this finalized block: most requests come between two blocks.
    pub known_positions: Arc<Mutex<Option<KnownPositions>>>,
}

/// The whole interface, `docs/openapi/indexer.json`.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cohort indexer",
        version = "1",
        description = "Mirror of one DstackKms and of every DstackApp registered in it. It decides nothing: check on \
                       the chain what you act on. Prose: docs/spec/indexer-api.md.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(
        schema::Hash,
        schema::Address,
        schema::HexBytes,
        schema::Label,
        schema::Jurisdiction,
        schema::Epsilon,
        schema::Delta,
        schema::Cursor,
        schema::Bookmark,
        schema::StreamId,
        schema::Refusal,
        schema::Position,
        answer::TermsSchema,
        crate::event::DatasetInfo,
        crate::event::Receipt,
        crate::event::AppEvent,
        crate::event::RegistryEvent,
        stream::Streamed,
        stream::Rewind,
        stream::Head,
    ))
)]
struct Interface;

/// The OpenAPI document.
pub fn openapi() -> Document {
    documented().into_openapi()
}

fn documented() -> OpenApiRouter<Arc<Api>> {
    let mut router = OpenApiRouter::with_openapi(Interface::openapi())
        .routes(routes!(route::healthz))
        .routes(routes!(route::readyz))
        .routes(routes!(route::metrics))
        .routes(routes!(route::openapi))
        .routes(routes!(route::status))
        .routes(routes!(route::kms))
        .routes(routes!(route::cohorts))
        .routes(routes!(route::apps))
        .routes(routes!(route::app))
        .routes(routes!(route::proposals))
        .routes(routes!(route::proposal))
        .routes(routes!(route::datasets))
        .routes(routes!(route::runs))
        .routes(routes!(route::run))
        .routes(routes!(route::receipts))
        .routes(routes!(route::timeline))
        .routes(routes!(route::release_decision))
        .routes(routes!(route::release_decisions))
        .routes(routes!(route::events));
    let document = router.get_openapi_mut();
    document.paths.paths.values_mut().for_each(error::document);
    if let Some(components) = &mut document.components {
        for (name, schema) in &mut components.schemas {
            if name != "Refusal" {
                complete(schema);
            }
        }
    }
    router
}

/// Answers have all their fields, empty ones as `null`.
fn complete(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(object)) => object.required = object.properties.keys().cloned().collect(),
        RefOr::T(Schema::AllOf(parts)) => parts.items.iter_mut().for_each(complete),
        _ => {}
    }
}

/// All routes.
pub fn router(api: Api) -> Router {
    let (router, _) = documented().split_for_parts();
    let api = Arc::new(api);
    router
        .route("/", get(route::index))
        .route("/plain", get(route::plain))
        .fallback(route::asset)
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(middleware::from_fn(unchanged))
        .layer(middleware::from_fn_with_state(api.clone(), origin::shared))
        .layer(middleware::from_fn_with_state(api.counters.clone(), counted))
        .with_state(api)
}

async fn counted(State(counters): State<Arc<Counters>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    Counters::add(&counters.requests, 1);
    if response.status().is_server_error() {
        Counters::add(&counters.request_failures, 1);
    }
    response
}

/// Answers 304 without a body to a request that already has these bytes.
async fn unchanged(request: Request, next: Next) -> Response {
    let known: Vec<HeaderValue> =
        request.headers().get_all(header::IF_NONE_MATCH).into_iter().cloned().collect();
    let mut response = next.run(request).await;
    let tag = response.headers().get(header::ETAG);
    if let (StatusCode::OK, Some(tag)) = (response.status(), tag)
        && known.iter().any(|known| names(known, tag))
    {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// RFC 9110, section 13.1.2: weak comparison.
fn names(known: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(known), Ok(tag)) = (known.to_str(), tag.to_str()) else { return false };
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    known.trim() == "*" || known.split(',').any(|one| strong(one) == strong(tag))
}

impl Api {
    /// Seconds since the mirror last held the newest block; `None`: never.
    fn lag(&self) -> Option<Duration> {
        self.health.borrow().caught_up.map(|at| at.elapsed())
    }

    /// Room for event streams.
    pub fn stream_permits() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_STREAMS))
    }

    pub(crate) fn open_streams(&self) -> u64 {
        MAX_STREAMS.saturating_sub(self.streams.available_permits()) as u64
    }

    async fn readiness(&self) -> Result<Readiness, ApiError> {
        let health = self.health.borrow().clone();
        let head = self.store.reserved().head().await?.map(|head| head.number);
        Ok(Readiness {
            ready: self.synced(),
            head,
            chain_head: health.chain_head,
            lag_blocks: health.chain_head.map(|chain| chain.saturating_sub(head.unwrap_or_default())),
            lag_seconds: self.lag().map(|lag| lag.as_secs()),
            heads_by: if health.websocket { "websocket" } else { "polling" },
            last_error: health.last_error,
        })
    }

    fn synced(&self) -> bool {
        self.lag().is_some_and(|lag| lag <= self.max_lag)
    }

    async fn view(&self) -> Result<View, ApiError> {
        self.view_in(&self.store).await
    }

    async fn view_in(&self, store: &Store) -> Result<View, ApiError> {
        let mut snapshot = store.snapshot().await?;
        let positions = self.positions(&mut snapshot).await?.ok_or(ApiError::NotSynced)?;
        Ok(View { positions, snapshot })
    }

    /// The positions of a snapshot: read once a block, whoever asks.
    async fn positions(&self, snapshot: &mut Snapshot) -> Result<Option<Positions>, ApiError> {
        let finalized = self.health.borrow().finalized;
        let Some(head) = snapshot.head().await? else { return Ok(None) };
        let known = || self.known_positions.lock().unwrap_or_else(PoisonError::into_inner);
        let same = known().filter(|(at, _)| *at == (head, finalized));
        if let Some((_, positions)) = same {
            return Ok(Some(positions));
        }
        let positions = Positions::of(snapshot, self.confirmations, finalized).await?;
        if let Some(positions) = positions {
            *known() = Some(((head, finalized), positions));
        }
        Ok(positions)
    }

    /// The view, and the app of the path with its registration.
    async fn view_of(&self, app: &str) -> Result<(View, Address, Stamp), ApiError> {
        let app = address("app", app)?;
        let mut view = self.view().await?;
        let registered = view.registration(app).await?.ok_or(ApiError::AppUnknown(app))?;
        Ok((view, app, registered))
    }
}

/// An app's configuration at the head, and what decisions take from it at the head and at the confirmed position.
struct Configuration {
    app: Address,
    state: AppState,
    facts: [AppFacts; 2],
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

    fn answer<T: Serialize + ToSchema>(&self, body: T) -> Answer<T> {
        Answer::new(&self.positions, body)
    }

    /// The registered apps.
    async fn registered(&mut self) -> Result<Arc<Registered>, ApiError> {
        let (registry, head) = (self.positions.source.registry, self.positions.head);
        Ok(self.snapshot.registered(registry, (head.number, head.hash)).await?)
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

    /// One page of registrations.
    async fn registrations(&mut self, page: &Parameters) -> Result<Vec<Recorded<RegistryEvent>>, ApiError> {
        self.page(self.positions.source.registry, Kinds::One("app_registered"), page).await
    }

    /// Those that are the first of their app.
    async fn first_registrations(
        &mut self,
        rows: &[Recorded<RegistryEvent>],
    ) -> Result<Vec<(Address, Stamp)>, ApiError> {
        let mut first = Vec::new();
        for row in rows {
            if let RegistryEvent::AppRegistered { app } = row.event
                && self.registration(app).await? == Some(row.stamp)
            {
                first.push((app, row.stamp));
            }
        }
        Ok(first)
    }

    /// One page of a contract's events. The pages before it must be of the same chain.
    async fn page<E: Stored>(
        &mut self,
        contract: Address,
        kinds: Kinds<'_>,
        page: &Parameters,
    ) -> Result<Vec<Recorded<E>>, ApiError> {
        let after = page.after()?;
        if let Some(Bookmark { cursor, block_hash: Some(hash) }) = after {
            // Blocks with events are never forgotten.
            let stored = self.snapshot.block(cursor.block_number).await?;
            if stored.is_none_or(|stored| stored.hash != hash) {
                return Err(ApiError::CursorGone(cursor.block_number));
            }
        }
        let after = after.map(|bookmark| bookmark.cursor);
        let select = Select::new(contract, By::Contract, kinds, self.at()).page(after, page.limit()?);
        Ok(self.snapshot.events(select).await?)
    }

    async fn app_state(&mut self, app: Address) -> Result<AppState, ApiError> {
        let at = self.at();
        Ok(AppState::load(&mut self.snapshot, app, at).await?)
    }

    async fn configuration(&mut self, app: Address) -> Result<Configuration, ApiError> {
        let (head, confirmed) = (self.positions.head, self.positions.confirmed);
        let rows = AppState::rows(&mut self.snapshot, app, head.number).await?;
        let state = AppState::fold(&rows, head.number);
        let then = AppState::fold(&rows, confirmed.number);
        let facts = [state.facts(head.timestamp), then.facts(confirmed.timestamp)];
        Ok(Configuration { app, state, facts })
    }

    async fn all_datasets(&mut self, app: Address) -> Result<Vec<Recorded<AppEvent>>, ApiError> {
        let select = Select::new(app, By::Contract, Kinds::One("dataset_registered"), self.at());
        Ok(self.snapshot.events(select).await?)
    }

    async fn app(&mut self, app: Address, registered: Stamp) -> Result<App, ApiError> {
        let state = self.app_state(app).await?;
        let datasets = self.all_datasets(app).await?;
        Ok(App::of(app, registered, &state, &datasets))
    }

    async fn proposal(
        &mut self,
        configuration: &Configuration,
        id: ProposalId,
    ) -> Result<Option<Proposal>, ApiError> {
        let at = self.at();
        let rows = ProposalState::rows(&mut self.snapshot, configuration.app, id, at).await?;
        let proposal = ProposalState::fold(id, &rows, at);
        let decisions = self.decisions(configuration, &proposal, id, &rows);
        Ok(proposal.known().then(|| Proposal::of(id, &configuration.state, &proposal, decisions)))
    }

    /// `proposalDecision` at the head and at the confirmed position.
    fn decisions(
        &self,
        configuration: &Configuration,
        proposal: &ProposalState,
        id: ProposalId,
        rows: &[Recorded<AppEvent>],
    ) -> [Decision; 2] {
        let then = ProposalState::fold(id, rows, self.positions.confirmed.number);
        let [now, before] = &configuration.facts;
        [decide_proposal(now, proposal.facts().as_ref()), decide_proposal(before, then.facts().as_ref())]
    }

    /// Whether a proposal of the app is live at both positions. Only the newest activation for a compose hash can be, and
    /// none from before the era.
    async fn any_live(&mut self, configuration: &Configuration) -> Result<bool, ApiError> {
        let (app, at) = (configuration.app, self.at());
        let select = Select::new(app, By::Contract, Kinds::One("proposal_activated"), at);
        let rows: Vec<Recorded<AppEvent>> = self.snapshot.events(select).await?;
        let began = configuration.state.era_began;
        let mut newest = BTreeMap::new();
        for row in rows.iter().filter(|row| began.is_none_or(|began| row.stamp.cursor > began)) {
            if let AppEvent::ProposalActivated { proposal_id, compose_hash, .. } = row.event {
                newest.insert(compose_hash, proposal_id);
            }
        }
        for id in newest.into_values() {
            let rows = ProposalState::rows(&mut self.snapshot, app, id, at).await?;
            let proposal = ProposalState::fold(id, &rows, at);
            if self.decisions(configuration, &proposal, id, &rows) == [Decision::Allow; 2] {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
