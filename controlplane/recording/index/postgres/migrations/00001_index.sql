-- +goose Up
CREATE TABLE session (
  no             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id             text COLLATE "C" NOT NULL UNIQUE,
  day            integer NOT NULL, -- on which it began
  subject        text NOT NULL,
  workload       text NOT NULL,
  groups         text NOT NULL, -- JSON
  grant_id       text NOT NULL,
  task           text NOT NULL,
  resource       text NOT NULL,
  account        text NOT NULL,
  database_name  text NOT NULL,
  protocol       text NOT NULL,
  node           text NOT NULL,
  region         text NOT NULL,
  client_address text NOT NULL,
  client_host    text NOT NULL,
  client_program text NOT NULL,
  epoch          text NOT NULL,
  revision       bigint NOT NULL,
  start_us       bigint NOT NULL,
  last_us        bigint NOT NULL,
  end_us         bigint NOT NULL, -- 0 while it lives
  end_reason     text NOT NULL,
  statements     bigint NOT NULL,
  denied         bigint NOT NULL,
  row_count      bigint NOT NULL,
  bytes          bigint NOT NULL,
  recording      text NOT NULL,
  legal_hold     text NOT NULL DEFAULT '',
  -- where the chain stands
  next           bigint NOT NULL,
  previous       bytea NOT NULL,
  span_first     bigint NOT NULL,
  span_last      bigint NOT NULL,
  span_open      boolean NOT NULL,
  open_from      bigint NOT NULL,
  sealed         boolean NOT NULL,
  shipper        text NOT NULL, -- the node, as its certificate names it
  events         bigint NOT NULL,
  last_statement bigint NOT NULL,
  node_key       bytea NOT NULL
);
CREATE INDEX session_start ON session (start_us, id);
CREATE INDEX session_subject ON session (subject, start_us);
CREATE INDEX session_day ON session (day);
CREATE INDEX session_live ON session (start_us, id) WHERE end_us = 0;

-- All rows of a session lie in the partition of the day on which it began, so that a day
-- is forgotten by dropping its partitions.
CREATE TABLE chunk (
  day        integer NOT NULL,
  session_no bigint NOT NULL,
  number     bigint NOT NULL,
  hash       bytea NOT NULL,
  size       bigint NOT NULL,
  PRIMARY KEY (session_no, number, day)
) PARTITION BY LIST (day);

-- A text with what it uses, once a day.
CREATE TABLE wording (
  day     integer NOT NULL,
  id      uuid NOT NULL,
  text    text NOT NULL,
  touched text NOT NULL, -- JSON
  words   tsvector NOT NULL,
  PRIMARY KEY (id, day)
) PARTITION BY LIST (day);
CREATE INDEX wording_words ON wording USING gin (words);

CREATE TABLE statement (
  day         integer NOT NULL,
  session_no  bigint NOT NULL,
  number      bigint NOT NULL,
  seq         bigint NOT NULL,
  time_us     bigint NOT NULL,
  wording     uuid, -- NULL is none
  verdict     smallint NOT NULL,
  rule        text NOT NULL,
  reason      text NOT NULL,
  settled     smallint, -- the verdict after all; NULL while there is no outcome
  row_count   bigint,
  bytes       bigint,
  affected    bigint,
  code        text,
  tag         text,
  duration_us bigint,
  PRIMARY KEY (session_no, number, day)
) PARTITION BY LIST (day);

-- Of a session in a minute: the statements from first to last, though others may stand between.
CREATE TABLE span (
  day          integer NOT NULL,
  minute       bigint NOT NULL,
  session_no   bigint NOT NULL,
  first_number bigint NOT NULL,
  last_number  bigint NOT NULL,
  first_us     bigint NOT NULL,
  last_us      bigint NOT NULL,
  statements   bigint NOT NULL,
  PRIMARY KEY (minute, session_no, day)
) PARTITION BY LIST (day);

-- The same by what was said.
CREATE TABLE said (
  day          integer NOT NULL,
  wording      uuid NOT NULL,
  minute       bigint NOT NULL,
  session_no   bigint NOT NULL,
  first_number bigint NOT NULL,
  last_number  bigint NOT NULL,
  PRIMARY KEY (wording, minute, session_no, day)
) PARTITION BY LIST (day);

-- The same by column, and by relation for its columns together.
CREATE TABLE touch (
  day          integer NOT NULL,
  name         text COLLATE "C" NOT NULL,
  minute       bigint NOT NULL,
  session_no   bigint NOT NULL,
  role         smallint NOT NULL,
  mask         text NOT NULL,
  first_number bigint NOT NULL,
  last_number  bigint NOT NULL,
  first_us     bigint NOT NULL,
  last_us      bigint NOT NULL,
  statements   bigint NOT NULL,
  PRIMARY KEY (name, minute, session_no, role, mask, day)
) PARTITION BY LIST (day);

-- Days that are far from now, which a wrong clock makes, have no partition of their own.
CREATE TABLE chunk_other PARTITION OF chunk DEFAULT;
CREATE TABLE wording_other PARTITION OF wording DEFAULT;
CREATE TABLE statement_other PARTITION OF statement DEFAULT;
CREATE TABLE span_other PARTITION OF span DEFAULT;
CREATE TABLE said_other PARTITION OF said DEFAULT;
CREATE TABLE touch_other PARTITION OF touch DEFAULT;
