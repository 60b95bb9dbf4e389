-- +goose Up
-- What packs are found by that have statements whose literals were cut out of their texts.
ALTER TABLE pack ADD COLUMN words tsvector NOT NULL DEFAULT '';
CREATE INDEX pack_words ON pack USING gin (words);
