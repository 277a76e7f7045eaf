-- For SQLite and PostgreSQL alike. What is marked as sqlite's is a comment to PostgreSQL.

-- What this database mirrors: one registry on one chain.
create table source (
  source_id bigint primary key constraint source_is_single check (source_id = 1),
  chain_id bigint not null,
  registry bytea not null constraint source_registry_length check (length(registry) = 20)
);

-- Headers: every block that has events of ours, the last 256 blocks without a gap (to find reorganisations by parent
-- hash), and some older ones as anchors for deeper reorganisations. The highest is the head.
create table block (
  number bigint primary key,
  hash bytea not null constraint block_hash_length check (length(hash) = 32),
  parent_hash bytea not null constraint block_parent_hash_length check (length(parent_hash) = 32),
  timestamp bigint not null -- Unix seconds
) /*sqlite: without rowid */;

-- Blocks that a reorganisation took back, and the newest block that was kept then (null: none). Not state of the
-- chain: a stream that resumes at such a block learns from it how far to go back.
create table orphan (
  hash bytea primary key constraint orphan_hash_length check (length(hash) = 32),
  number bigint not null,
  kept_number bigint,
  kept_hash bytea
) /*sqlite: without rowid */;

-- Contracts whose events are here, each by a small number: an address would make every index entry longer.
create table contract (
  contract_id bigint primary key,
  address bytea not null unique constraint contract_address_length check (length(address) = 20)
) /*sqlite: without rowid */;

-- Names of events, snake_case, for the same reason.
create table event_kind (
  kind_id bigint primary key,
  kind text not null unique
) /*sqlite: without rowid */;

-- Every fact, append only. Anything that is asked "as of block N" is a fold over rows with block_number <= N, and a
-- reorganisation only deletes rows; no other table could be left behind by it.
create table event (
  block_number bigint not null,
  log_index bigint not null,
  contract_id bigint not null,       -- the registry or an app
  kind_id bigint not null,
  transaction_hash bytea not null,
  log bytea not null,                -- topics and data, packed: src/store/pack.rs
  app bytea,                         -- the app that a registry's event names
  -- The last 8 bytes, as a big-endian signed integer, of each identifier that the event is looked up by; null where it
  -- has none of that sort. Identifiers are random, and indexes of them whole would be most of what is written. Who
  -- reads compares the whole identifier, in the log.
  proposal_key bigint,
  compose_key bigint,
  run_key bigint,
  dataset_key bigint,
  superseded_key bigint,             -- of the proposal or dataset that this event replaces
  constraint event_pk primary key (block_number, log_index)
  -- No foreign keys: PostgreSQL asks for the other row in a query of its own and locks it. Ranges are written with all
  -- their blocks, which is checked before they are (`Store::apply`), and blocks go only after their events.
) /*sqlite: without rowid */;

-- The timeline of an app.
create index event_by_position on event (contract_id, block_number, log_index);
-- Configuration of an app, its runs, its receipts, registered apps.
create index event_by_kind on event (contract_id, kind_id, block_number, log_index);
-- Is this app registered?
create index event_by_app on event (contract_id, app, kind_id, block_number, log_index) where app is not null;
-- One proposal, one run, one dataset: what release decisions read.
create index event_by_proposal on event (contract_id, proposal_key, kind_id, block_number, log_index) where proposal_key is not null;
create index event_by_compose on event (contract_id, compose_key, kind_id, block_number, log_index) where compose_key is not null;
create index event_by_run on event (contract_id, run_key, block_number, log_index) where run_key is not null;
create index event_by_dataset on event (contract_id, dataset_key, kind_id, block_number, log_index) where dataset_key is not null;
create index event_by_superseded on event (contract_id, superseded_key, kind_id, block_number, log_index) where superseded_key is not null;
