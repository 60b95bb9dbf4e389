package publish

import "testing"

// TestHistoryIsBounded by all that it holds: each lock and each ended grant makes a state
// with all of them.
func TestHistoryIsBounded(t *testing.T) {
	h := New(Config{})
	for range maxHistory {
		h.remember(newPublished(state{content: content{urgent: &layer{make([]*item, 20_000)}, scoped: &layer{make([]*item, 10)}}}))
	}
	items := 0
	for _, p := range h.history {
		items += len(p.urgent.items) + len(p.scoped.items)
	}
	if len(h.history) < 2 || items > maxHistoryItems || items != h.retained {
		t.Errorf("%d states hold %d items, and %d are counted; at most %d are allowed", len(h.history), items, h.retained, maxHistoryItems)
	}
}
