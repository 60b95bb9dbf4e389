-- What sqlsmith reads: views instead of tables that have masks, so that it neither samples
-- nor locks nor changes them, which is refused, and pure functions alone.
CREATE SCHEMA sales;
CREATE VIEW sales.customers AS SELECT NULL::int id, NULL::text name, NULL::text email, NULL::text country, NULL::timestamptz created_at;
CREATE VIEW sales.orders AS SELECT NULL::int id, NULL::int customer_id, NULL::text customer_email, NULL::numeric(12,2) amount, NULL::text status, NULL::timestamptz created_at;
CREATE VIEW sales.orders_pub AS SELECT NULL::int id, NULL::numeric(12,2) amount, NULL::text status;
CREATE TABLE sales.status (id int PRIMARY KEY, status text);
CREATE VIEW information_schema.pg_proc AS SELECT * FROM pg_catalog.pg_proc WHERE provolatile = 'i' AND pronamespace = 'pg_catalog'::regnamespace;
ALTER DATABASE smith SET search_path = information_schema, pg_catalog;
