package generate

import "testing"

// Most queries come again with other literals, and as the same statement otherwise.
func TestAgain(t *testing.T) {
	g, queries, again := New(5), 0, 0
	for range 2000 {
		s := g.Next()
		other, ok := g.Again(s)
		if len(s.Texts) == 1 && !s.Writes {
			queries++
		}
		if !ok {
			continue
		}
		again++
		if a, b := literal.ReplaceAllString(s.Texts[0], "?"), literal.ReplaceAllString(other.Texts[0], "?"); a != b || s.Texts[0] == other.Texts[0] {
			t.Fatalf("%s\n%s", s.Texts[0], other.Texts[0])
		}
	}
	if again*3 < 2*queries {
		t.Errorf("only %d of %d queries come again", again, queries)
	}
}
