package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"
)

func TestHAR(t *testing.T) {
	at := func(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }
	start := time.Unix(1_700_000_000, 0)
	said := func(ms int, statement uint64, tag, data string) *Event {
		return &Event{Kind: KindChunk, Elapsed: at(ms), Statement: statement, Tag: tag, Data: []byte(data), Bytes: int64(len(data))}
	}
	intent := func(ms int, statement uint64, text string, params ...string) *Event {
		e := &Event{Kind: KindIntent, Time: start.Add(at(ms)), Elapsed: at(ms), Statement: statement, Text: text, Rule: "read/permit[0]"}
		for _, p := range params {
			e.Params = append(e.Params, Param{Value: p})
		}
		return e
	}
	opened := &Event{Kind: KindOpened, Time: start, Session: &Session{ID: "s-1", Subject: "alice", Task: "read", Resource: "orders-api", Protocol: "http"}}
	var b bytes.Buffer
	err := HAR(&b, "1.0", eventsOf(
		opened,
		intent(10, 1, "PATCH /api/orders/7?a=b%20c&d&e=%zz+%4", "accept: */*", "authorization: (redacted)", "content-type: application/json"),
		intent(11, 2, "GET /picture"),
		said(12, 1, "asked", `{"status":"paid"}`),
		said(20, 1, "head", "200 OK\ncontent-type: application/json\nlocation: /there\n"),
		said(30, 1, "body", `{"email":`), said(31, 1, "body", `"***"}`),
		&Event{Kind: KindFinished, Elapsed: at(40), Statement: 1, Tag: "200 OK", Bytes: 15 + 1000, Duration: at(30)},
		said(41, 2, "head", "200 OK\ncontent-type: image/png\n"), said(42, 2, "body", "\xff\xd8"),
		&Event{Kind: KindDenied, Time: start.Add(at(50)), Elapsed: at(50), Text: "DELETE /api/orders/7", Reason: `task "read" does not allow it`, Rule: "read/permit"},
	))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Log struct {
			Version string
			Creator struct{ Name, Version string }
			Entries []harEntry
		}
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || got.Log.Version != "1.2" || got.Log.Creator.Version != "1.0" || len(got.Log.Entries) != 3 {
		t.Fatalf("%v: %s", err, &b)
	}
	patch, denied, open := got.Log.Entries[0], got.Log.Entries[1], got.Log.Entries[2]
	for name, ok := range map[string]bool{
		"request":  patch.Request.Method == http.MethodPatch && patch.Request.URL == "https://orders-api/api/orders/7?a=b%20c&d&e=%zz+%4" && len(patch.Request.Headers) == 3 && patch.Request.BodySize == 17,
		"query":    len(patch.Request.Query) == 3 && patch.Request.Query[2] == harPair{"e", "%zz %4"} && patch.Request.Query[0] == harPair{"a", "b c"} && patch.Request.Query[1] == harPair{"d", ""},
		"asked":    patch.Request.Post != nil && patch.Request.Post.Text == `{"status":"paid"}` && patch.Request.Post.Type == "application/json",
		"answer":   patch.Response.Status == 200 && patch.Response.StatusText == "OK" && patch.Response.Redirect == "/there" && patch.Response.Content.Text == `{"email":"***"}`,
		"bound":    patch.Response.BodySize == 1015 && patch.Response.Content.Comment == "15 bytes of it were recorded",
		"times":    patch.Time == 30 && patch.Timings.Wait == 10 && patch.Timings.Receive == 20 && patch.Started == "2023-11-14T22:13:20.010Z",
		"denied":   denied.Response.Status == 0 && denied.Comment == `denied: task "read" does not allow it` && denied.Rule == "read/permit",
		"the last": open.Request.Method == http.MethodGet && open.Response.Content.Encoding == "base64" && open.Response.Content.Text == "/9g=" && open.Comment == "the recording ends before the answer does",
	} {
		if !ok {
			t.Errorf("%s: %s", name, &b)
		}
	}
	b.Reset()
	if err := HAR(&b, "1.0", eventsOf(opened)); err != nil || !json.Valid(b.Bytes()) {
		t.Errorf("without a request: %v %s", err, &b)
	}
	b.Reset()
	pg := &Event{Kind: KindOpened, Session: &Session{Protocol: "postgres"}}
	if err := HAR(&b, "1.0", eventsOf(pg, intent(1, 1, "SELECT 1"))); !errors.Is(err, errNoRequests) || b.Len() > 0 {
		t.Errorf("of a database: %v %s", err, &b)
	}
}
