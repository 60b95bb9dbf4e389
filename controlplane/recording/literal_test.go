package recording

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

func TestIndexedTextHidesWhatMasksHide(t *testing.T) {
	masked := []record.Touch{{Column: "sales.customers.id", Role: record.RoleOutput}, {Column: "sales.customers.email", Role: record.RolePredicate, Mask: "email"}}
	const text = "SELECT id /* x */ FROM sales.customers WHERE email = 'ann@example' AND n > -1.5e3 AND t = $q$ann$q$ AND p = $1"
	const bare = "SELECT id   FROM sales.customers WHERE email = ? AND n > -? AND t = ? AND p = $1"
	for name, c := range map[string]struct {
		protocol string
		e        record.Event
		want     string
	}{
		"masked":           {"postgres", record.Event{Text: text, Verdict: postern.VerdictAllow, Touched: masked}, bare},
		"not masked":       {"postgres", record.Event{Text: text, Verdict: postern.VerdictAllow, Touched: masked[:1]}, text},
		"denied":           {"postgres", record.Event{Text: text, Verdict: postern.VerdictDeny}, bare},
		"denied, in part":  {"postgres", record.Event{Text: text, Touched: masked[:1]}, bare},
		"held":             {"postgres", record.Event{Text: text, Verdict: postern.VerdictHold}, bare},
		"nothing known":    {"postgres", record.Event{Text: text, Verdict: postern.VerdictAllow}, bare},
		"does not end":     {"postgres", record.Event{Text: "SELECT 'a' || 'ann@example"}, "SELECT ? || ..."},
		"a request":        {"http", record.Event{Text: "GET /api/orders/7/by-mail/ann@example/status?email=ann@example", Verdict: postern.VerdictAllow}, "GET /api/orders/?/by-mail/?/status"},
		"a known request":  {"http", record.Event{Text: "GET /orders/7?email=ann@example", Verdict: postern.VerdictAllow, Touched: []record.Touch{{Column: "/orders/?"}}}, "GET /orders/?"},
		"a call":           {"http", record.Event{Text: "POST /shop.Orders/Get", Verdict: postern.VerdictAllow, Touched: []record.Touch{{Column: "/shop.Orders/Get"}}}, "POST /shop.Orders/Get"},
		"a denied call":    {"http", record.Event{Kind: record.KindDenied, Text: "POST /shop.Orders/Get", Tag: "/shop.Orders/Get"}, "POST /shop.Orders/Get"},
		"one not read":     {"http", record.Event{Kind: record.KindDenied, Text: "POST /shop.Orders/Get"}, "POST /?/?"},
		"a tool":           {"http", record.Event{Text: "tools/call get_7 at /mcp", Verdict: postern.VerdictDeny}, "tools/call get_7 at /mcp"},
		"a resource":       {"http", record.Event{Text: `resources/read "docs://ann at home" at /mcp`, Verdict: postern.VerdictAllow}, "resources/read ? at /mcp"},
		"a list":           {"http", record.Event{Text: "tools/list at /mcp", Verdict: postern.VerdictAllow}, "tools/list at /mcp"},
		"a command":        {"ssh", record.Event{Text: "cat /etc/passwd", Verdict: postern.VerdictDeny}, ""},
		"another protocol": {"mysql", record.Event{Text: text, Verdict: postern.VerdictDeny}, ""},
	} {
		if got := indexed(c.protocol, &c.e); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func FuzzWithoutLiterals(f *testing.F) {
	f.Add("SELECT 1", "x")
	f.Add("SELECT E'\\'", "'; --")
	f.Fuzz(func(t *testing.T, before, secret string) {
		if strings.ContainsAny(secret, "'\\") || len(secret) < 4 || strings.Contains(before, secret) || strings.Contains("select '?'...", secret) {
			return
		}
		got := withoutLiterals(before + " SELECT 'Z" + secret + "'")
		// Where the text before opens something, the rest is part of it or is not read.
		if strings.Contains(got, "Z"+secret) && withoutLiterals(before) == before {
			t.Errorf("%q is left of %q", got, before)
		}
	})
}

// TestNamesAreBounded: a path is as long as whoever asks for it likes, and rows are found by it.
func TestNamesAreBounded(t *testing.T) {
	j := judge(&record.Event{Touched: []record.Touch{{Column: "/" + strings.Repeat("\u00e9", index.MaxText), Mask: strings.Repeat("m", index.MaxText)}}})
	if c, m := j.touched[0].Column, j.touched[0].Mask; len(c) > index.MaxName || len(c) < index.MaxName-1 || !utf8.ValidString(c) || len(m) != index.MaxName {
		t.Errorf("a name of %d bytes, a mask of %d", len(c), len(m))
	}
}
