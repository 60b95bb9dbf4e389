-- +goose Up
-- What packs are found by that have statements whose literals were cut out of their texts; the
-- rowid is the pack's number.
CREATE VIRTUAL TABLE pack_word USING fts5 (words, content='', contentless_delete=1, detail=none, tokenize="unicode61 remove_diacritics 0 tokenchars '_'");
