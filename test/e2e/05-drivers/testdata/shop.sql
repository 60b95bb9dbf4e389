-- A database of many types, and one to write to.
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN cents AS int CHECK (VALUE >= 0);

CREATE TABLE things (
  id int PRIMARY KEY, mood mood, cents cents, flag bool, big bigint, small smallint, ratio float8, price numeric(10,2),
  at timestamptz, day date, span interval, doc jsonb, key uuid, raw bytea, tags text[], moods mood[], secret text, salary int);
INSERT INTO things VALUES (
  1, 'glad', 250, true, 1::bigint << 40, -7, 0.25, 12.50, '2026-01-02 03:04:05+00', '2026-01-02', '1 day 2 hours', '{"a": [1, 2]}',
  '6f1c6a0e-0f4b-4c53-9c1e-3f8f6a3a2b11', '\x0001ff', '{a,"b\"c",NULL}', '{sad,glad}', 'canary note', 7654321);
INSERT INTO things (id) VALUES (2);

CREATE TABLE notes (driver text, n int, body text, PRIMARY KEY (driver, n));
