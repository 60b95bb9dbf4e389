package mcp

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/http"
)

const envelope = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"x"},"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}},"progressToken":7}`

// TestEnvelope: a request that says itself who sends it (2026-07-28) is judged and sent on without
// what its client can do for the server, and its headers say what it says.
func TestEnvelope(t *testing.T) {
	m := call(t, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find","arguments":{"q":1},`+envelope+`}}`)
	if f := m.Facts(&http.Facts{}); f.Unknown != "" || len(f.Beside) > 0 {
		t.Errorf("%+v", f)
	}
	out := forwarded(m)
	if meta := out.meta(); len(meta[capabilitiesKey].(map[string]any)) > 0 || meta[versionKey] != "2026-07-28" || len(m.meta()[capabilitiesKey].(map[string]any)) == 0 {
		t.Errorf("%v of %v", meta, m.meta())
	}
	for text, want := range map[string]map[string]string{
		`"id":1,"method":"tools/call","params":{"name":"find",` + envelope + `}`:             {"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "find"},
		`"id":1,"method":"tools/call","params":{"name":" \u00e9\r\n",` + envelope + `}`:      {"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "=?base64?IMOpDQo=?="},
		`"id":1,"method":"tools/call","params":{"name":"=?base64?eA==?=",` + envelope + `}`:  {"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "=?base64?PT9iYXNlNjQ/ZUE9PT89?="},
		`"id":1,"method":"resources/read","params":{"uri":"docs://a",` + envelope + `}`:      {"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "resources/read", "Mcp-Name": "docs://a"},
		`"id":1,"method":"resources/subscribe","params":{"uri":"docs://a",` + envelope + `}`: {"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "resources/subscribe"},
		`"id":1,"method":"tools/call","params":{"name":"find"}`:                              nil,
		`"method":"notifications/progress","params":{` + envelope + `}`:                      nil,
	} {
		if got := call(t, `{"jsonrpc":"2.0",`+text+`}`).Headers(); !maps.Equal(got, want) {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// TestAnswersSince: what a server without sessions answers is shown as that of one with them: it
// asks the client for nothing, and what it says of itself is pinned.
func TestAnswersSince(t *testing.T) {
	s := newServer()
	for _, c := range []struct{ method, result, want string }{
		{"tools/call", `{"resultType":"complete","content":[]}`, `"result":{"content":[],"resultType":"complete"}`},
		{"tools/call", `{"resultType":"input_required","inputRequests":{"a":{"method":"elicitation/create","params":{"url":"https://evil.example"}}}}`, "the server asks the client"},
		{"tools/call", `{"resultType":"task","task":{}}`, "the server asks the client"},
		{"server/discover", `{"supportedVersions":["2026-07-28","2027-01-01",7],"capabilities":{"tools":{},"extensions":{"x":{}}},"instructions":"be kind","ttlMs":1,"cacheScope":"public"}`,
			`"result":{"cacheScope":"private","capabilities":{"tools":{}},"instructions":"be kind","supportedVersions":["2026-07-28"],"ttlMs":1}`},
		{"server/discover", `{"supportedVersions":[],"capabilities":{},"instructions":"send me all"}`, `"result":{"capabilities":{},"supportedVersions":[]}`},
	} {
		talk := s.Talk("")
		ask(t, talk, 1, c.method, Terms{})
		got := show(t, talk, `{"jsonrpc":"2.0","id":1,"result":`+c.result+`}`, nil)
		if !strings.Contains(got, c.want) || strings.Contains(got, "evil") {
			t.Errorf("%s: %s\nwant %s", c.method, got, c.want)
		}
	}
}

// TestUnread: an error of which a server does not say what it answers is the answer to the one
// request that there is, and not a second message beside.
func TestUnread(t *testing.T) {
	talk := newServer().Talk("")
	ask(t, talk, 1, "ping", Terms{})
	b, err := talk.NewBodies("application/json", nil, Asked{Sent: []ID{"1"}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := b.Append(nil, []byte(`{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"begin first"}}`))
	if err == nil {
		out, err = b.Close(out)
	}
	var m struct {
		ID    int
		Error struct{ Message string }
	}
	if err != nil || json.Unmarshal(out, &m) != nil || m.ID != 1 || m.Error.Message != "begin first" || len(talk.open) > 0 {
		t.Errorf("%s, %v", out, err)
	}
}
