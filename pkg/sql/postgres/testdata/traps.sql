-- The sample company and what evasions use; sqltest.Traps describes the same.
CREATE SCHEMA sales; CREATE SCHEMA hr; CREATE SCHEMA audit; CREATE SCHEMA app; CREATE SCHEMA remote;
CREATE TABLE sales.customers(id int PRIMARY KEY, name text, email text, phone text, card text, country text, created_at timestamptz DEFAULT '2026-01-01');
CREATE TABLE sales.orders(id int PRIMARY KEY, customer_id int, customer_email text, amount numeric(12,2), status text, note text, created_at timestamptz DEFAULT '2026-01-01');
CREATE TABLE sales.regions(code text PRIMARY KEY, name text);
CREATE TABLE hr.salaries(emp text, salary int);
CREATE TABLE audit.log(id bigserial PRIMARY KEY, at timestamptz DEFAULT now(), actor text, action text, detail jsonb);
CREATE VIEW sales.orders_v AS SELECT o.id, o.amount, c.email AS contact FROM sales.orders o JOIN sales.customers c ON c.id = o.customer_id;
CREATE VIEW sales.orders_pub AS SELECT id, amount, status FROM sales.orders;
CREATE TABLE sales.orders_archive (LIKE sales.orders);
CREATE MATERIALIZED VIEW sales.contacts AS SELECT id, email FROM sales.customers;
CREATE TABLE remote.customers(id int, name text, email text);
CREATE FUNCTION sales.customer_email(int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT email FROM sales.customers WHERE id = $1 $$;
CREATE FUNCTION sales.lower(int) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT 'x' $$;
CREATE FUNCTION app.purge_orders() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION app.noisy(text) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$;
CREATE FUNCTION app.run(text, text) RETURNS text LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION app.pure(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT $1 $$;
CREATE DOMAIN app.code AS text CHECK (app.noisy(VALUE) IS NOT NULL);
CREATE TYPE sales.mood AS ENUM ('sad', 'glad');
CREATE OPERATOR sales.+ (LEFTARG = text, RIGHTARG = text, FUNCTION = app.run);

INSERT INTO sales.customers SELECT i, 'Name ' || i, 'user' || i || '@example.com', '+1555' || i, '4111' || i, CASE WHEN i % 2 = 0 THEN 'DE' ELSE 'US' END FROM generate_series(1, 40) i;
INSERT INTO sales.orders SELECT i, 1 + i % 40, c.email, (i % 97) * 1.25, CASE WHEN i % 5 = 0 THEN 'open' ELSE 'paid' END, 'call ' || c.phone FROM generate_series(1, 200) i JOIN sales.customers c ON c.id = 1 + i % 40;
INSERT INTO sales.regions VALUES ('DE', 'Germany'), ('FR', 'France'), ('US', 'States');
INSERT INTO hr.salaries VALUES ('alice', 123456);
CLUSTER sales.orders USING orders_pkey; CLUSTER sales.customers USING customers_pkey;
