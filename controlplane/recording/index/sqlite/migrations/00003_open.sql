-- +goose Up
CREATE INDEX session_open ON session (id) WHERE recording = 'open';
