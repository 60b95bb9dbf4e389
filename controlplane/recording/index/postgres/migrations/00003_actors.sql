-- +goose Up
-- Who acted for the subject, the nearest first, as JSON.
ALTER TABLE session ADD COLUMN actors text NOT NULL DEFAULT '[]';
