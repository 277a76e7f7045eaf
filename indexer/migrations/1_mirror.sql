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

-- Every fact, append only. Anything that is asked "as of block N" is a fold over rows with block_number <= N, and a
-- reorganisation only deletes rows; no other table could be left behind by it.
create table event (
  block_number bigint not null,
  log_index bigint not null,
  transaction_hash bytea not null,
  address bytea not null, -- the registry or an app
  kind text not null,     -- name of the event, snake_case
  topics bytea not null,  -- its signature and indexed arguments, 32 bytes each
  data bytea not null,    -- its other arguments, ABI-encoded
  -- Identifiers among the arguments, for the indexes below; null where the event has none of that sort.
  app bytea,              -- the app that a registry's event names
  proposal_id bytea,
  compose_hash bytea,
  run_id bytea,
  dataset_id bytea,
  superseded_id bytea,    -- the proposal or dataset that this event replaces
  constraint event_pk primary key (block_number, log_index),
  constraint event_block_fk foreign key (block_number) references block (number)
) /*sqlite: without rowid */;

-- Configuration of an app, its runs, its receipts, registered apps.
create index event_by_kind on event (address, kind, block_number, log_index);
-- Is this app registered?
create index event_by_app on event (address, app, kind, block_number, log_index) where app is not null;
-- One proposal, one run, one dataset: what release decisions read.
create index event_by_proposal on event (address, proposal_id, kind, block_number, log_index) where proposal_id is not null;
create index event_by_compose on event (address, compose_hash, kind, block_number, log_index) where compose_hash is not null;
create index event_by_run on event (address, run_id, kind, block_number, log_index) where run_id is not null;
create index event_by_dataset on event (address, dataset_id, kind, block_number, log_index) where dataset_id is not null;
create index event_by_superseded on event (address, superseded_id, kind, block_number, log_index) where superseded_id is not null;
-- The timeline of an app.
create index event_by_position on event (address, block_number, log_index);
