CREATE TABLE sales.status (id int PRIMARY KEY, status text);
INSERT INTO sales.status VALUES (1, 'open'), (2, 'paid'), (3, 'void');
ALTER TABLE sales.status OWNER TO wall_admin;
GRANT ALL ON sales.status TO app_rw;
ANALYZE sales.status;
-- The planner compares the width of values with this, and chooses the order of rows.
ALTER DATABASE warehouse SET work_mem = '512MB';
