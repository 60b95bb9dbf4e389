-- psql, and with it libpq: facts, one a line.
\pset tuples_only on
\pset format unaligned
\pset fieldsep '='
\pset recordsep ' '
\pset null NULL

\getenv keeper SHOP_USER

\echo -n 'simple\t'
SELECT code, name FROM regions ORDER BY code;

PREPARE one_order (int) AS SELECT id FROM orders WHERE id = $1;
\o /dev/null
SELECT format('EXECUTE one_order (%s)', n) FROM generate_series(1, 20) n \gexec
\o
EXECUTE one_order (20) \gset
\echo 'prepared\t' :id

PREPARE several (int[], text) AS SELECT count(*) FROM orders WHERE id = ANY($1) AND ($2 IS NULL OR status = $2);
\echo -n 'parameters\t'
EXECUTE several ('{1,2,3}', NULL);

\pset fieldsep ' '
\echo -n 'masked.text\t'
SELECT email, card FROM customers WHERE id = 900001;
\echo -n 'nulls\t'
SELECT card, country FROM customers WHERE id = 900002;
\echo -n 'columns\t'
SELECT id, amount, customer_email AS email FROM orders \gdesc

\set FETCH_COUNT 50
\o /dev/null
SELECT id FROM orders ORDER BY id;
\o
\echo 'stream\t' :ROW_COUNT
\set FETCH_COUNT 0
\copy (SELECT id FROM orders ORDER BY id) TO '/dev/null'
\echo 'copy\t' :ROW_COUNT

BEGIN;
SELECT salary FROM hr.salaries;
\echo 'refused.state\t' :LAST_ERROR_SQLSTATE
\echo 'refused.message\t' :LAST_ERROR_MESSAGE
SELECT 1;
\echo 'failed-transaction\t' :LAST_ERROR_SQLSTATE
ROLLBACK;
\echo -n 'after-rollback\t'
SELECT count(*) FROM regions;
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT salary FROM hr.salaries;
\echo -n 'after-refused-savepoint\t'
SELECT count(*) FROM regions;
COMMIT;
\set ON_ERROR_ROLLBACK off
SELECT 1 / (id - id) FROM orders WHERE id = 1;
\echo 'server-error\t' :LAST_ERROR_SQLSTATE
SET statement_timeout = 300;
SELECT count(*) FROM generate_series(1, 1000000000);
\echo 'cancelled\t' :LAST_ERROR_SQLSTATE
RESET statement_timeout;

PREPARE one_email (int) AS SELECT email FROM customers WHERE id = $1;
\o /dev/null
EXECUTE one_email (900001);
\o
\prompt 'change-policy\t\n' answer
EXECUTE one_email (900001);
\echo 'changed.error\t' :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE
DEALLOCATE one_email;
PREPARE one_email (int) AS SELECT email FROM customers WHERE id = $1;
\echo -n 'changed\t'
EXECUTE one_email (900001);

\connect shop :keeper
BEGIN;
INSERT INTO notes (driver, n, body) SELECT 'psql', n, 'note ' || n FROM generate_series(1, 10) n;
\set inserted :ROW_COUNT
ROLLBACK;
\copy notes (driver, n, body) FROM 'notes.csv' (FORMAT csv)
UPDATE notes SET body = NULL WHERE driver = 'psql' AND n < 5;
\set updated :ROW_COUNT
DELETE FROM notes WHERE driver = 'psql';
\echo 'write\t' :inserted :updated :ROW_COUNT
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
\echo -n 'isolation\t'
SHOW transaction_isolation;
COMMIT;
