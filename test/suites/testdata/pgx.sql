-- What pgx's testsetup/postgresql_setup.sql makes, but for accounts of other servers.
CREATE EXTENSION hstore;
CREATE EXTENSION ltree;
CREATE DOMAIN uint64 AS numeric(20,0);
CREATE USER " tricky, ' } "" \\ test user " SUPERUSER PASSWORD 'secret';
