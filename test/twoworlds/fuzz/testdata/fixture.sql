CREATE TABLE sales.status (id int PRIMARY KEY, status text);
INSERT INTO sales.status VALUES (1, 'open'), (2, 'paid'), (3, 'void');
ALTER TABLE sales.status OWNER TO wall_admin;
GRANT ALL ON sales.status TO app_rw;
-- Products of several tables are what statements take their time for.
TRUNCATE sales.orders_archive;
INSERT INTO sales.orders_archive SELECT i + 100000, i, pg_temp.email(i), i, 'paid', pg_temp.note(i) FROM generate_series(2, 5) i;
ANALYZE sales.orders_archive;
ANALYZE sales.status;
-- The planner compares the width of values with this, and chooses the order of rows.
ALTER DATABASE warehouse SET work_mem = '512MB';
