-- +goose Up
CREATE TABLE session (
  id             TEXT PRIMARY KEY,
  subject        TEXT NOT NULL,
  grant_id       TEXT NOT NULL,
  task           TEXT NOT NULL,
  resource       TEXT NOT NULL,
  protocol       TEXT NOT NULL,
  node           TEXT NOT NULL,
  region         TEXT NOT NULL,
  client_address TEXT NOT NULL,
  client_program TEXT NOT NULL,
  epoch          TEXT NOT NULL,
  revision       INTEGER NOT NULL,
  start_us       INTEGER NOT NULL,
  end_us         INTEGER NOT NULL, -- 0 while it lives
  end_reason     TEXT NOT NULL,
  statements     INTEGER NOT NULL,
  denied         INTEGER NOT NULL,
  row_count      INTEGER NOT NULL,
  bytes          INTEGER NOT NULL,
  recording      TEXT NOT NULL,
  -- where the chain stands
  next           INTEGER NOT NULL,
  previous       BLOB NOT NULL,
  span_first     INTEGER NOT NULL,
  span_last      INTEGER NOT NULL,
  span_open      INTEGER NOT NULL,
  open_from      INTEGER NOT NULL,
  sealed         INTEGER NOT NULL,
  shipper        TEXT NOT NULL, -- the node, as its certificate names it
  events         INTEGER NOT NULL,
  last_statement INTEGER NOT NULL,
  node_key       BLOB NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX session_start ON session (start_us, id);
CREATE INDEX session_subject ON session (subject, start_us);
CREATE INDEX session_live ON session (start_us, id) WHERE end_us = 0;

CREATE TABLE chunk (
  session TEXT NOT NULL,
  number  INTEGER NOT NULL,
  hash    BLOB NOT NULL,
  size    INTEGER NOT NULL,
  PRIMARY KEY (session, number)
) WITHOUT ROWID, STRICT;

CREATE TABLE statement (
  session     TEXT NOT NULL,
  number      INTEGER NOT NULL,
  seq         INTEGER NOT NULL,
  time_us     INTEGER NOT NULL,
  text        TEXT NOT NULL,
  verdict     INTEGER NOT NULL,
  rule        TEXT NOT NULL,
  reason      TEXT NOT NULL,
  touched     TEXT NOT NULL, -- JSON
  settled     INTEGER,       -- the verdict after all; NULL while there is no outcome
  row_count   INTEGER,
  affected    INTEGER,
  code        TEXT,
  tag         TEXT,
  duration_us INTEGER,
  PRIMARY KEY (session, number)
) WITHOUT ROWID, STRICT;
CREATE INDEX statement_time ON statement (time_us);

-- what each session used, so that "who touched this column" need not read statements
CREATE TABLE touch (
  name       TEXT NOT NULL,
  session    TEXT NOT NULL,
  role       INTEGER NOT NULL,
  mask       TEXT NOT NULL,
  first_us   INTEGER NOT NULL,
  last_us    INTEGER NOT NULL,
  statements INTEGER NOT NULL,
  PRIMARY KEY (name, session, mask)
) WITHOUT ROWID, STRICT;
