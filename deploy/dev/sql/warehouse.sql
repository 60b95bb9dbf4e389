-- The sample company's warehouse: believable, and the same on every start.
CREATE SCHEMA sales;
CREATE SCHEMA hr;
CREATE SCHEMA audit;

CREATE TABLE sales.regions (code text PRIMARY KEY, name text NOT NULL);
INSERT INTO sales.regions VALUES ('DE', 'Germany'), ('FR', 'France'), ('US', 'United States'), ('JP', 'Japan'), ('BR', 'Brazil'), ('ZA', 'South Africa');

CREATE TABLE sales.customers (
  id int PRIMARY KEY, name text NOT NULL, email text NOT NULL UNIQUE, phone text, card text,
  country text REFERENCES sales.regions, created_at timestamptz NOT NULL);
INSERT INTO sales.customers
SELECT i, f.name || ' ' || l.name, lower(f.name) || '.' || lower(l.name) || i || '@' || d.name,
       '+1 555 ' || lpad((i % 10000)::text, 4, '0'),
       '4' || lpad(((i::bigint * 7919 * 104729) % 1000000000000000)::text, 15, '0'),
       (ARRAY['DE','FR','US','JP','BR','ZA'])[1 + i % 6],
       timestamptz '2024-01-01 00:00+00' + (i * 53 % 700) * interval '1 day'
FROM generate_series(1, 10000) i
JOIN LATERAL (SELECT (ARRAY['Alice','Bela','Chen','Dora','Emil','Fatma','Goran','Hana','Ines','Jonas'])[1 + i % 10]) f(name) ON true
JOIN LATERAL (SELECT (ARRAY['Adler','Brandt','Costa','Dubois','Endo','Ferrari','Gruber','Hughes','Ito','Jansen','Khumalo'])[1 + i % 11]) l(name) ON true
JOIN LATERAL (SELECT (ARRAY['example.com','example.org','mail.example.net'])[1 + i % 3]) d(name) ON true;

CREATE TABLE sales.orders (
  id int PRIMARY KEY, customer_id int NOT NULL REFERENCES sales.customers, customer_email text NOT NULL,
  amount numeric(12,2) NOT NULL, status text NOT NULL CHECK (status <> 'bad'), note text, created_at timestamptz NOT NULL);
INSERT INTO sales.orders
SELECT i, c.id, c.email, ((i::bigint * 7907) % 99991) / 100.0, (ARRAY['open','paid','paid','paid','shipped','void'])[1 + i % 6],
       CASE WHEN i % 50 = 0 THEN 'call ' || c.phone END,
       timestamptz '2026-01-01 00:00+00' + (i % 300) * interval '1 day' + (i % 86400) * interval '1 second'
FROM generate_series(1, 200000) i JOIN sales.customers c ON c.id = 1 + (i::bigint * 31) % 10000;
CREATE INDEX orders_customer ON sales.orders (customer_id);

CREATE TABLE hr.salaries (employee text PRIMARY KEY, salary int NOT NULL);
INSERT INTO hr.salaries VALUES ('alice', 61000), ('bob', 78000), ('carol', 52000), ('ada', 97000);

CREATE TABLE audit.log (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), actor text NOT NULL, action text NOT NULL, detail jsonb);

-- What the gateway logs in as acts for this role: broad, as such accounts are. The tasks
-- make it narrow.
ALTER TABLE sales.regions OWNER TO warehouse_rw;
ALTER TABLE sales.customers OWNER TO warehouse_rw;
ALTER TABLE sales.orders OWNER TO warehouse_rw;
GRANT USAGE ON SCHEMA sales, hr, audit TO warehouse_rw;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA hr, audit TO warehouse_rw;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA audit TO warehouse_rw;
GRANT CREATE ON SCHEMA sales TO warehouse_rw;
ANALYZE;
