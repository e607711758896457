-- A role for each service, with no more than it needs. Run it in Slipstream's database after `slipstream provision`, as the
-- owner of the tables, and again after each upgrade:
--
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f roles.sql
--   psql "$DATABASE_URL" -c '\password slipstream_api'      -- and the others
--
-- Runs read and write checkpoints and the store, whose tables are LangGraph's: the runner makes and migrates them, so they
-- are its own. pgvector (`CREATE EXTENSION vector`) takes a superuser.

DO $$
DECLARE service text;
BEGIN
  FOREACH service IN ARRAY ARRAY['slipstream_api', 'slipstream_runner', 'slipstream_projector'] LOOP
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = service) THEN
      EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', service);
    END IF;
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %I', service);
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', service);
  END LOOP;
END $$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;

GRANT SELECT ON threads, runs, positions, graphs, quarantine, erasures TO slipstream_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON assistants, assistant_versions, crons, temporary_threads, webhooks
  TO slipstream_api;

GRANT SELECT, INSERT, UPDATE, DELETE ON threads, runs, erasures TO slipstream_projector;
GRANT SELECT, INSERT, UPDATE ON positions, quarantine, webhooks TO slipstream_projector;

GRANT CREATE ON SCHEMA public TO slipstream_runner;
GRANT SELECT (tenant, thread_id, run_id, status, updated_at) ON runs TO slipstream_runner;
GRANT SELECT, INSERT, UPDATE ON positions TO slipstream_runner;
GRANT SELECT, INSERT, UPDATE, DELETE ON fences TO slipstream_runner;
GRANT SELECT, INSERT, UPDATE ON graphs, assistants, assistant_versions TO slipstream_runner;
