-- +goose Up
-- Statements of one chunk that began, were let through and ended in it share a row. Those of
-- a session do not overlap. What index.Unpack reads is in the body.
CREATE TABLE pack (
  no           INTEGER PRIMARY KEY,
  session_no   INTEGER NOT NULL,
  first_number INTEGER NOT NULL,
  last_number  INTEGER NOT NULL,
  first_us     INTEGER NOT NULL,
  last_us      INTEGER NOT NULL,
  body         BLOB NOT NULL,
  UNIQUE (session_no, first_number)
) STRICT;
