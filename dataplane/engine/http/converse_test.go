package http

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/test/wait"
)

// messages is a policy that masks e-mail addresses, and refuses the tool drop.
func messages(_ string, facts any) postern.Decision {
	d := postern.Decision{Verdict: postern.VerdictAllow, Effect: postern.EffectWrite, Obligations: []postern.Obligation{
		{Content: &postern.ContentRule{Detect: []postern.DetectRule{{Kind: "email", Mask: &postern.MaskRule{Method: postern.MaskRedact, Value: "***"}}}}},
		{MCP: &postern.MCPRule{Tools: []string{"*"}}},
	}}
	if f, ok := facts.(*mcp.Facts); ok && (f.Name == "drop" || f.Unknown != "") {
		return postern.Decision{Verdict: postern.VerdictDeny, Reason: "no " + f.Name + f.Unknown, Rule: "t/permit"}
	}
	return d
}

func newServer(t *testing.T, serve http.HandlerFunc) *house {
	t.Helper()
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) { p.Decide = messages })
	h.mux.HandleFunc("/mcp", serve)
	return h
}

func answer(w http.ResponseWriter, kind, body string) {
	w.Header().Set("Content-Type", kind)
	_, _ = io.WriteString(w, body)
}

// one is the only execution, once it is over, which a client may be told of before.
func (h *house) one(t *testing.T) enginetest.Execution {
	t.Helper()
	var all []enginetest.Execution
	wait.Telling(t, func() string { return fmt.Sprintf("one execution, and it is over: %+v", all) }, func() bool {
		all = h.door.Last().Executions()
		return len(all) == 1 && all[0].Done == 1
	})
	return all[0]
}

const aCall = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find"}}`

// TestMessagesGoOnInOneForm: what the server gets is what was judged, and nothing beside
// says otherwise.
func TestMessagesGoOnInOneForm(t *testing.T) {
	var got string
	h := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = fmt.Sprintf("%s %d %q %q", b, r.ContentLength, append(r.Header["Mcp-Method"], r.Header["Mcp-Name"]...), r.Header["Mcp-Protocol-Version"])
		answer(w, "application/json", `[{"jsonrpc":"2.0","id":1,"result":{"a":"b@example.com","key":"`+theSecret+`"}}]`)
	})
	body := ` [ {"params":{"name":"find"}, "method":"tools\/call","id":1,"jsonrpc":"2.0"},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"drop"}}, {"jsonrpc":"2.0","method":"notifications/other"}]`
	resp, said := h.ask(t, "POST /mcp", body, "Content-Type: application/json", "Mcp-Method: tools/call", "Mcp-Name: drop", "Mcp-Protocol-Version: 2025-11-25")
	sent := `[{"id":1,"jsonrpc":"2.0","method":"tools/call","params":{"name":"find"}}]`
	if got != fmt.Sprintf(`%s %d [] ["2025-11-25"]`, sent, len(sent)) {
		t.Errorf("the server got %s", got)
	}
	want := `[{"error":{"code":-32003,"data":{"code":"denied","rule":"t/permit"},"message":"postern: no drop [rule t/permit]"},"id":2,"jsonrpc":"2.0"},{"id":1,"jsonrpc":"2.0","result":{"a":"***","key":"` + strings.Repeat("*", len(theSecret)) + `"}}]`
	if said != want || resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(want)) {
		t.Errorf("%s %s\nwant %s", resp.Status, said, want)
	}
	if done := h.one(t); done.Text != "tools/call find at /mcp" || done.Outcome.Tag != "result" {
		t.Errorf("%+v", done)
	}
}

// TestMessagesArePosted: what stands behind another method is no message, whatever a server
// makes of it.
func TestMessagesArePosted(t *testing.T) {
	got := make(chan string, 4)
	h := newServer(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- r.Method + " " + string(b)
	})
	for _, method := range []string{"GET", "DELETE"} {
		resp, said := h.ask(t, method+" /mcp", strings.Replace(aCall, "find", "drop", 1), "Content-Type: application/json")
		if resp.StatusCode != http.StatusBadRequest || len(got) > 0 {
			t.Errorf("%s: %s %s", method, resp.Status, said)
		}
	}
	if resp, said := h.ask(t, "DELETE /mcp", ""); resp.StatusCode != http.StatusOK || <-got != "DELETE " {
		t.Errorf("%s %s", resp.Status, said)
	}
}

// TestAskedIsRecordedMasked: who reads the record is shown no more of what was asked than of what
// was answered; the server gets all of it.
func TestAskedIsRecordedMasked(t *testing.T) {
	var got string
	h := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = string(b) + r.Header.Get("X-Customer")
		answer(w, "application/json", `{"jsonrpc":"2.0","id":1,"result":{}}`)
	})
	_, _ = h.ask(t, "POST /mcp", strings.Replace(aCall, `"find"`, `"find","arguments":{"q":"b@example.com"}`, 1), "Content-Type: application/json", "X-Customer: c@example.com")
	if done := fmt.Sprintf("%+v", h.one(t)); strings.Contains(done, "@example.com") || !strings.Contains(done, `{"q":"***"}`) || !strings.Contains(got, "b@example.com") || !strings.Contains(got, "c@example.com") {
		t.Errorf("%s\nthe server got %s", done, got)
	}
	h.mux.HandleFunc("/plain", func(http.ResponseWriter, *http.Request) {})
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(string, any) postern.Decision {
			d := messages("", nil)
			d.Obligations = d.Obligations[:1]
			return d
		}
	})
	_, _ = h.ask(t, "GET /plain", "", "X-Customer: c@example.com")
	all := h.door.Last().Executions()
	if said := fmt.Sprintf("%+v", all); strings.Contains(said, "@example.com") || !strings.Contains(said, "x-customer: ***") {
		t.Errorf("%s", said)
	}
}

// TestAnswersOfAnotherKind: whatever a server answers, a client is told in its protocol, and
// sees nothing that was not looked into.
func TestAnswersOfAnotherKind(t *testing.T) {
	for name, c := range map[string]struct {
		serve  http.HandlerFunc
		status int
		says   string
	}{
		"a page": {func(w http.ResponseWriter, _ *http.Request) { answer(w, "text/html", "b@example.com") }, 200, `"id":1`},
		"no type": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			_, _ = io.WriteString(w, "b@example.com")
		}, 200, `"id":1`},
		"a page of an error": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "b@example.com", http.StatusBadGateway) }, 502, "not shown"},
		"JSON of an error": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"error":"b@example.com"}`)
		}, 403, "not shown"},
		"asked to sign in": {func(w http.ResponseWriter, _ *http.Request) { // by which clients would begin to, in vain
			w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="https://elsewhere.example/"`)
			w.WriteHeader(http.StatusUnauthorized)
		}, 200, "does not take the credential"},
		"an error of MCP": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","error":{"code":-32000,"message":"no b@example.com"},"id":null}`)
		}, 400, `"no ***"`},
		"twice the same name": {func(w http.ResponseWriter, _ *http.Request) {
			answer(w, "application/json", `{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":"b@example.com"}}`)
		}, 200, `"id":1`},
		"packed": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Type", "application/json")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, `{"jsonrpc":"2.0","id":1,"result":{"a":"b@example.com"}}`)
			_ = z.Close()
		}, 200, `{"a":"***"}`},
		"packed in no known way": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "x")
			answer(w, "application/json", `{"jsonrpc":"2.0","id":1,"result":{"a":"b@example.com"}}`)
		}, 200, `"id":1`},
		"somebody else's answer": {func(w http.ResponseWriter, _ *http.Request) {
			answer(w, "application/json", `{"jsonrpc":"2.0","id":7,"result":{"a":"b@example.com"}}`)
		}, 200, `"id":1`},
		"nothing, late": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			w.WriteHeader(http.StatusAccepted)
			_ = http.NewResponseController(w).Flush()
		}, 200, "did not answer"},
		"events, and no answer": {func(w http.ResponseWriter, _ *http.Request) {
			answer(w, "text/event-stream", "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"data\":1}}\n\n: over\n\n")
		}, 200, `data: {"error":{"code":-32003,"data":{"code":"unavailable"},"message":"postern: the server did not answer this"},"id":1`},
		"it hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 200, "cannot be reached"},
	} {
		h := newServer(t, c.serve)
		resp, said := h.ask(t, "POST /mcp", aCall, "Content-Type: application/json")
		if resp.StatusCode != c.status || !strings.Contains(said, c.says) || strings.Contains(said, "example") {
			t.Errorf("%s: %s %s", name, resp.Status, said)
		}
		h.one(t)
	}
}

// speak sends one message in a session of the protocol, and reads events until one has a
// text.
func (h *house) speak(t *testing.T, method, session, body, until string, headers ...string) string {
	t.Helper()
	c := newClient(h.addr, "t.target", enginetest.Token)
	t.Cleanup(c.Close)
	req, err := http.NewRequestWithContext(t.Context(), method, c.base+"/mcp", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Authorization": {"Bearer " + enginetest.Token}, "Postern-Task": {"t.target"}, "Content-Type": {"application/json"}, sessionHeader: {session}}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said := ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if said += lines.Text() + "\n"; until != "" && strings.Contains(lines.Text(), until) {
			break
		}
	}
	return said
}

// TestEventsOfASession: what was asked in one stream may be answered in another, on the
// same terms; what nobody asked is not shown.
func TestEventsOfASession(t *testing.T) {
	pong, call := make(chan string, 1), ""
	h := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		id, _, _ := strings.Cut(strings.TrimPrefix(string(body), `{"id":`), ",")
		switch {
		case strings.Contains(string(body), `"initialize"`):
			w.Header().Set(sessionHeader, "s-1")
			answer(w, "application/json", `{"jsonrpc":"2.0","id":`+id+`,"result":{}}`)
		case r.Method == http.MethodGet && r.Header.Get("Last-Event-Id") == "e-1":
			answer(w, "text/event-stream", "id: e-2\ndata: {\"jsonrpc\":\"2.0\",\"id\":"+call+",\"result\":{\"a\":\"b@example.com\"}}\n\n"+
				"data: {\"jsonrpc\":\"2.0\",\"id\":"+call+",\"result\":{\"a\":\"once more\"}}\n\n"+
				"data: {\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"sampling/createMessage\",\"params\":{}}\n\n"+
				"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"data\":\"c@example.com\"}}\n\n"+
				"data: {\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"ping\"}\n\n")
		case strings.Contains(string(body), `"result"`):
			pong <- string(body)
			w.WriteHeader(http.StatusAccepted)
		case strings.Contains(string(body), "find"): // it breaks off before the answer
			call = id
			answer(w, "text/event-stream", "id: e-1\nretry: 10\ndata:\n\n")
		default:
			answer(w, "application/json", `{"jsonrpc":"2.0","id":1,"result":{}}`)
		}
	})
	h.speak(t, http.MethodPost, "", `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}`, "")
	if got := h.speak(t, http.MethodPost, "s-1", aCall, ""); !strings.Contains(got, "retry: 10\nid: e-1\ndata:") {
		t.Errorf("where to go on is not told: %q", got)
	}
	got := h.speak(t, http.MethodGet, "s-1", "", "", "Last-Event-Id: e-1")
	for _, want := range []string{"id: e-2\ndata: {\"id\":1,\"jsonrpc\":\"2.0\",\"result\":{\"a\":\"***\"}}", `{"data":"***"}`, `"method":"ping"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in %s", want, got)
		}
	}
	if strings.Contains(got, "once more") || strings.Contains(got, "sampling") || strings.Contains(got, "example") {
		t.Errorf("shown: %s", got)
	}
	h.speak(t, http.MethodPost, "s-1", `{"jsonrpc":"2.0","id":9,"result":{}}`, "")
	if got := <-pong; got != `{"id":9,"jsonrpc":"2.0","result":{}}` {
		t.Errorf("the server got %s", got)
	}
	if got := h.speak(t, http.MethodPost, "s-1", `{"jsonrpc":"2.0","id":9,"result":{}}`, ""); !strings.Contains(got, "nothing was asked") {
		t.Errorf("answered once more: %s", got)
	}
	for name, session := range map[string]string{"of nobody": "s-2", "over": "s-1"} {
		if name == "over" {
			h.speak(t, http.MethodDelete, "s-1", "", "")
		}
		if got := h.speak(t, http.MethodPost, session, aCall, ""); !strings.Contains(got, "the session of MCP is not known here") {
			t.Errorf("a session %s: %s", name, got)
		}
	}
}

// TestEventsComeAsTheyDo: an event is shown before the next one is there, and a kill ends
// the stream.
func TestEventsComeAsTheyDo(t *testing.T) {
	next := make(chan struct{})
	h := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"data\":%d}}\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	c := newClient(h.addr, "t.target", enginetest.Token)
	t.Cleanup(c.Close)
	resp, err := c.request(t.Context(), "GET /mcp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 2 {
		for lines.Scan() && !strings.HasPrefix(lines.Text(), "data") {
		}
		if !strings.Contains(lines.Text(), fmt.Sprintf(`"data":%d`, i)) {
			t.Fatalf("%q", lines.Text())
		}
		if i == 0 {
			next <- struct{}{}
		}
	}
	h.door.Last().Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "locked"})
	for lines.Scan() {
	}
	if lines.Err() == nil {
		t.Error("a stream that was cut passes for a whole one")
	}
}
