-- A run has few events, so their kind need not be in its index, which is the widest after the table itself.
drop index event_by_run;
create index event_by_run on event (address, run_id, block_number, log_index) where run_id is not null;

-- PostgreSQL asks for the block of each new event in a query of its own, and locks the block's row. Ranges are written
-- with all their blocks, which is checked before they are (`Store::apply`), and blocks go only after their events.
--postgres: alter table event drop constraint event_block_fk;
