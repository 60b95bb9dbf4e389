-- +goose Up
-- Why whose session it is cannot be believed; empty where there is no doubt.
ALTER TABLE session ADD COLUMN doubt TEXT NOT NULL DEFAULT '';
