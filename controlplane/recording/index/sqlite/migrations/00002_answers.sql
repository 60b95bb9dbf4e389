-- +goose Up
-- Sessions get short numbers; texts are kept once; what questions begin with leads to
-- statements by the minute.
CREATE TABLE session_new (
  no             INTEGER PRIMARY KEY AUTOINCREMENT,
  id             TEXT NOT NULL UNIQUE,
  day            INTEGER NOT NULL, -- on which it began
  subject        TEXT NOT NULL,
  workload       TEXT NOT NULL DEFAULT '',
  groups         TEXT NOT NULL DEFAULT '[]', -- JSON
  grant_id       TEXT NOT NULL,
  task           TEXT NOT NULL,
  resource       TEXT NOT NULL,
  account        TEXT NOT NULL DEFAULT '',
  database_name  TEXT NOT NULL DEFAULT '',
  protocol       TEXT NOT NULL,
  node           TEXT NOT NULL,
  region         TEXT NOT NULL,
  client_address TEXT NOT NULL,
  client_host    TEXT NOT NULL DEFAULT '',
  client_program TEXT NOT NULL,
  epoch          TEXT NOT NULL,
  revision       INTEGER NOT NULL,
  start_us       INTEGER NOT NULL,
  last_us        INTEGER NOT NULL,
  end_us         INTEGER NOT NULL, -- 0 while it lives
  end_reason     TEXT NOT NULL,
  statements     INTEGER NOT NULL,
  denied         INTEGER NOT NULL,
  row_count      INTEGER NOT NULL,
  bytes          INTEGER NOT NULL,
  recording      TEXT NOT NULL,
  legal_hold     TEXT NOT NULL DEFAULT '',
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
) STRICT;
INSERT INTO session_new (id, day, subject, grant_id, task, resource, protocol, node, region, client_address, client_host, client_program,
  epoch, revision, start_us, last_us, end_us, end_reason, statements, denied, row_count, bytes, recording,
  next, previous, span_first, span_last, span_open, open_from, sealed, shipper, events, last_statement, node_key)
SELECT id, start_us / 86400000000, subject, grant_id, task, resource, protocol, node, region, client_address,
  rtrim(rtrim(client_address, '0123456789'), ':'), client_program,
  epoch, revision, start_us, max(start_us, end_us), end_us, end_reason, statements, denied, row_count, bytes, recording,
  next, previous, span_first, span_last, span_open, open_from, sealed, shipper, events, last_statement, node_key
FROM session ORDER BY start_us, id;

CREATE TABLE chunk_new (
  session_no INTEGER NOT NULL,
  number     INTEGER NOT NULL,
  hash       BLOB NOT NULL,
  size       INTEGER NOT NULL,
  PRIMARY KEY (session_no, number)
) WITHOUT ROWID, STRICT;
INSERT INTO chunk_new SELECT s.no, c.number, c.hash, c.size FROM chunk c JOIN session_new s ON s.id = c.session;

CREATE TABLE wording (
  no      INTEGER PRIMARY KEY AUTOINCREMENT,
  day     INTEGER NOT NULL,
  id      BLOB NOT NULL,
  text    TEXT NOT NULL,
  touched TEXT NOT NULL, -- JSON
  UNIQUE (id, day)
) STRICT;
CREATE VIRTUAL TABLE word USING fts5 (words, content='', contentless_delete=1, detail=none, tokenize="unicode61 remove_diacritics 0 tokenchars '_'");

CREATE TABLE statement_new (
  session_no  INTEGER NOT NULL,
  number      INTEGER NOT NULL,
  seq         INTEGER NOT NULL,
  time_us     INTEGER NOT NULL,
  wording     INTEGER NOT NULL, -- 0 is none
  verdict     INTEGER NOT NULL,
  rule        TEXT NOT NULL,
  reason      TEXT NOT NULL,
  settled     INTEGER,          -- the verdict after all; NULL while there is no outcome
  row_count   INTEGER,
  bytes       INTEGER,
  affected    INTEGER,
  code        TEXT,
  tag         TEXT,
  duration_us INTEGER,
  PRIMARY KEY (session_no, number)
) WITHOUT ROWID, STRICT;

-- Texts of before are not known to be alike: each statement has its own.
CREATE TEMP TABLE moved AS
  SELECT row_number() OVER (ORDER BY s.no, t.number) AS wording, s.no AS session_no, s.day, t.*
  FROM statement t JOIN session_new s ON s.id = t.session;
INSERT INTO wording (no, day, id, text, touched) SELECT wording, day, randomblob(16), text, touched FROM moved WHERE text <> '';
INSERT INTO word (rowid, words) SELECT no, text FROM wording;
INSERT INTO statement_new
  SELECT session_no, number, seq, time_us, CASE text WHEN '' THEN 0 ELSE wording END, verdict, rule, reason,
    settled, row_count, NULL, affected, code, tag, duration_us FROM moved;

-- Of a session in a minute: the statements from first to last, though others may stand between.
CREATE TABLE span (
  minute       INTEGER NOT NULL,
  session_no   INTEGER NOT NULL,
  first_number INTEGER NOT NULL,
  last_number  INTEGER NOT NULL,
  first_us     INTEGER NOT NULL,
  last_us      INTEGER NOT NULL,
  statements   INTEGER NOT NULL,
  PRIMARY KEY (minute, session_no)
) WITHOUT ROWID, STRICT;
INSERT INTO span SELECT time_us / 60000000, session_no, min(number), max(number), min(time_us), max(time_us), count(*) FROM moved GROUP BY 1, 2;

-- The same by what was said.
CREATE TABLE said (
  wording      INTEGER NOT NULL,
  minute       INTEGER NOT NULL,
  session_no   INTEGER NOT NULL,
  first_number INTEGER NOT NULL,
  last_number  INTEGER NOT NULL,
  PRIMARY KEY (wording, minute, session_no)
) WITHOUT ROWID, STRICT;
INSERT INTO said SELECT wording, time_us / 60000000, session_no, number, number FROM moved WHERE text <> '';

-- The same by column, and by relation for its columns together.
DROP TABLE touch;
CREATE TABLE touch (
  name         TEXT NOT NULL,
  minute       INTEGER NOT NULL,
  session_no   INTEGER NOT NULL,
  role         INTEGER NOT NULL,
  mask         TEXT NOT NULL,
  first_number INTEGER NOT NULL,
  last_number  INTEGER NOT NULL,
  first_us     INTEGER NOT NULL,
  last_us      INTEGER NOT NULL,
  statements   INTEGER NOT NULL,
  PRIMARY KEY (name, minute, session_no, role, mask)
) WITHOUT ROWID, STRICT;
CREATE TEMP TABLE touched AS
  SELECT m.session_no, m.number, m.time_us, j.value ->> 'Column' AS name, j.value ->> 'Role' AS role, coalesce(j.value ->> 'Mask', '') AS mask
  FROM moved m, json_each(m.touched) j WHERE m.touched <> 'null';
INSERT INTO touch
  SELECT name, time_us / 60000000, session_no, role, mask, min(number), max(number), min(time_us), max(time_us), count(*)
  FROM touched WHERE name LIKE '%.%.%' GROUP BY 1, 2, 3, 4, 5;
-- How each statement used each relation: the bits of its roles, together.
INSERT INTO touch
  SELECT relation, time_us / 60000000, session_no, role, '', min(number), max(number), min(time_us), max(time_us), count(*)
  FROM (SELECT session_no, number, time_us,
      CASE WHEN name LIKE '%.%.%' THEN substr(name, 1, instr(name, '.') + instr(substr(name, instr(name, '.') + 1), '.') - 1) ELSE name END AS relation,
      max(role & 1) + max(role & 2) + max(role & 4) + max(role & 8) AS role
    FROM touched GROUP BY 1, 2, 3, 4)
  GROUP BY 1, 2, 3, 4;

DROP TABLE moved;
DROP TABLE touched;
DROP TABLE statement;
DROP TABLE chunk;
DROP TABLE session;
ALTER TABLE session_new RENAME TO session;
ALTER TABLE chunk_new RENAME TO chunk;
ALTER TABLE statement_new RENAME TO statement;
CREATE INDEX session_start ON session (start_us, id);
CREATE INDEX session_subject ON session (subject, start_us);
CREATE INDEX session_day ON session (day);
CREATE INDEX session_live ON session (start_us, id) WHERE end_us = 0;
