-- +goose Up
-- Statements of one chunk that began, were let through and ended in it share a row. Those of
-- a session do not overlap. What index.Unpack reads is in the body.
CREATE TABLE pack (
  day          integer NOT NULL,
  session_no   bigint NOT NULL,
  first_number bigint NOT NULL,
  last_number  bigint NOT NULL,
  first_us     bigint NOT NULL,
  last_us      bigint NOT NULL,
  body         bytea NOT NULL,
  PRIMARY KEY (session_no, first_number, day)
) PARTITION BY LIST (day);
-- A body is packed already.
ALTER TABLE pack ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE pack_other PARTITION OF pack DEFAULT;
