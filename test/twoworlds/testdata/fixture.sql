-- A company with everything that evasions reach for. What a world keeps secret comes from
-- functions of that world; all else is the same in both, byte by byte and in order.
CREATE EXTENSION dblink; CREATE EXTENSION postgres_fdw; CREATE EXTENSION file_fdw; CREATE EXTENSION tablefunc;
CREATE EXTENSION pg_stat_statements; CREATE EXTENSION hstore; CREATE EXTENSION pgcrypto; CREATE EXTENSION lo; CREATE EXTENSION xml2;
CREATE SCHEMA sales; CREATE SCHEMA audit; CREATE SCHEMA hr; CREATE SCHEMA app; CREATE SCHEMA remote;

CREATE TABLE sales.customers (id int PRIMARY KEY, name text, email text, phone text, ssn text, country text, created_at timestamptz DEFAULT '2026-01-01');
CREATE TABLE sales.orders (id int PRIMARY KEY, customer_id int REFERENCES sales.customers, customer_email text, amount numeric(12,2),
  status text CONSTRAINT status_ok CHECK (status <> 'bad'), note text, created_at timestamptz DEFAULT '2026-01-01');
CREATE TABLE audit.log (id bigserial PRIMARY KEY, at timestamptz DEFAULT now(), actor text, action text, detail jsonb);
CREATE TABLE hr.salaries (emp text, salary int);

INSERT INTO sales.customers SELECT i, CASE i WHEN 1 THEN 'Alice' ELSE 'Name ' || i END, pg_temp.email(i), pg_temp.phone(i), pg_temp.ssn(i),
  CASE WHEN i % 2 = 0 THEN 'DE' ELSE 'US' END, timestamptz '2026-01-01 00:00+00' + i * interval '1 minute' FROM generate_series(1, ${CUSTOMERS}) i;
INSERT INTO sales.orders SELECT i, 1 + i % ${CUSTOMERS}, pg_temp.email(1 + i % ${CUSTOMERS}), (i % 977) * 1.25, CASE WHEN i % 5 = 0 THEN 'open' ELSE 'paid' END,
  pg_temp.note(1 + i % ${CUSTOMERS}), timestamptz '2026-01-01 00:00+00' + i * interval '1 minute' FROM generate_series(1, ${ORDERS}) i;
INSERT INTO hr.salaries SELECT pg_temp.emp(i), pg_temp.salary(i) FROM generate_series(1, 2) i;
CREATE TABLE sales.leads (id int PRIMARY KEY, owner text, contact text);
INSERT INTO sales.leads SELECT i, CASE WHEN i % 2 = 0 THEN 'alice' ELSE 'bob' END, CASE WHEN i % 2 = 0 THEN 'yes' ELSE pg_temp.email(i) END FROM generate_series(1, 20) i;
INSERT INTO audit.log (actor, action) VALUES ('seed', 'x');

CREATE VIEW sales.orders_v AS SELECT o.id, o.amount, c.email AS contact FROM sales.orders o JOIN sales.customers c ON c.id = o.customer_id;
CREATE VIEW sales.orders_pub AS SELECT id, amount, status FROM sales.orders;
CREATE MATERIALIZED VIEW sales.contacts AS SELECT id, email FROM sales.customers;
ALTER TABLE sales.customers ADD CONSTRAINT customers_email_key UNIQUE (email);
CREATE INDEX orders_email ON sales.orders (customer_email);
CREATE TABLE sales.orders_archive () INHERITS (sales.orders);
INSERT INTO sales.orders_archive SELECT i + 100000, i, pg_temp.email(i), i, 'paid', pg_temp.note(i) FROM generate_series(2, 20) i;

CREATE FUNCTION sales.customer_email(int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT email FROM sales.customers WHERE id = $1 $$;
CREATE FUNCTION app.purge_orders() RETURNS int LANGUAGE plpgsql AS $$ DECLARE n int; BEGIN DELETE FROM sales.orders WHERE status = 'void'; GET DIAGNOSTICS n = ROW_COUNT; RETURN n; END $$;
CREATE PROCEDURE app.close_month() LANGUAGE plpgsql AS $$ BEGIN UPDATE sales.orders SET status = 'closed' WHERE status = 'nope'; END $$;
CREATE FUNCTION app.noisy(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'saw %', $1; RETURN 'x'; END $$;
CREATE FUNCTION app.run(q text) RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RETURN QUERY EXECUTE q; END $$;
CREATE FUNCTION public.lookup(q text) RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RETURN QUERY EXECUTE q; END $$;
CREATE FUNCTION app.listen() RETURNS void LANGUAGE plpgsql AS $$ BEGIN LISTEN orders; END $$;
CREATE FUNCTION app.retime() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); END $$;
CREATE FUNCTION app.loosen() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); END $$;
CREATE FUNCTION app.detailed(i int) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$ DECLARE e text; BEGIN
  SELECT coalesce(email, '') INTO e FROM sales.customers WHERE id = i; RAISE NOTICE 'looked' USING DETAIL = e, HINT = e, SCHEMA = e, TABLE = e, COLUMN = e, DATATYPE = e, CONSTRAINT = e; RETURN 'x'; END $$;
CREATE FUNCTION app.failing(i int) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$ DECLARE e text; BEGIN
  SELECT coalesce(email, '') INTO e FROM sales.customers WHERE id = i; RAISE EXCEPTION 'failed' USING DETAIL = e, HINT = e, SCHEMA = e, TABLE = e, COLUMN = e, DATATYPE = e, CONSTRAINT = e; END $$;
CREATE DOMAIN app.code AS text CHECK (app.noisy(VALUE) IS NOT NULL);

DO $$ BEGIN EXECUTE format('CREATE SERVER self FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host ''127.0.0.1'', port %L, dbname ''warehouse'')', current_setting('port')); END $$;
CREATE USER MAPPING FOR app_rw SERVER self OPTIONS (user 'app_rw', password 'x');
CREATE FOREIGN TABLE remote.customers (id int, name text, email text) SERVER self OPTIONS (schema_name 'sales', table_name 'customers');
SELECT lo_from_bytea(4242, pg_temp.email(1)::bytea);

-- The broad credential that the gateway logs in with.
GRANT USAGE ON SCHEMA sales, audit, hr, app, remote TO app_rw; GRANT CREATE ON DATABASE warehouse TO app_rw; GRANT CREATE ON SCHEMA app, public TO app_rw;
GRANT ALL ON ALL TABLES IN SCHEMA sales, audit, hr, remote TO app_rw; GRANT USAGE ON ALL SEQUENCES IN SCHEMA audit TO app_rw;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA app, sales, public TO app_rw;
GRANT EXECUTE ON FUNCTION pg_read_file(text), pg_stat_reset(), pg_switch_wal(), lo_import(text) TO app_rw;
GRANT pg_read_server_files, pg_write_server_files, pg_execute_server_program, pg_read_all_stats, reporting_admin TO app_rw;
GRANT SELECT ON LARGE OBJECT 4242 TO app_rw;
-- A wall works as the owner of what tasks reach, and not as a superuser.
GRANT CREATE ON DATABASE warehouse TO wall_admin;
DO $$ DECLARE s text; o record; BEGIN
  FOREACH s IN ARRAY ARRAY['sales', 'audit', 'hr', 'app'] LOOP
    EXECUTE format('ALTER SCHEMA %I OWNER TO wall_admin', s);
    FOR o IN SELECT oid::regclass AS name FROM pg_class WHERE relnamespace = s::regnamespace AND relkind IN ('r', 'v', 'm') ORDER BY oid LOOP
      EXECUTE format('ALTER TABLE %s OWNER TO wall_admin', o.name);
    END LOOP;
    FOR o IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = s::regnamespace ORDER BY oid LOOP
      EXECUTE format('ALTER ROUTINE %s OWNER TO wall_admin', o.name);
    END LOOP;
  END LOOP;
END $$;
CLUSTER sales.customers USING customers_pkey; CLUSTER sales.orders USING orders_pkey;
ANALYZE;
