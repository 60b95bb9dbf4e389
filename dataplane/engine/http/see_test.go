package http

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
)

// TestFormsSaidTwice: an answer that says twice what it is may be read in a way that its masks
// do not see, and is not shown.
func TestFormsSaidTwice(t *testing.T) {
	const said = `{"email":"bela@sample.example"}`
	for name, c := range map[string]struct{ header, first, second string }{
		"another type":    {"Content-Type", "application/json", "text/csv"},
		"no type":         {"Content-Type", "application/json", ""},
		"the same":        {"Content-Type", "application/json", "application/json"},
		"another packing": {"Content-Encoding", "identity", "gzip"},
		"packed, or not":  {"Content-Encoding", "", "gzip"},
	} {
		for _, status := range []int{http.StatusOK, http.StatusNotFound} {
			h := newHouse(t)
			serve := func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header()[c.header] = []string{c.first, c.second}
				w.WriteHeader(status)
				_, _ = io.WriteString(w, said)
			}
			h.mux.HandleFunc("/twice", serve)
			h.mux.HandleFunc("/mcp", serve)
			h.door.Set(func(p *enginetest.Policy) { p.Decide = masking })
			resp, told := h.ask(t, "GET /twice", "")
			if strings.Contains(told, "sample") || strings.Contains(told, "***") {
				t.Errorf("%s: %s %q", name, resp.Status, told)
			}
			if status == http.StatusOK && (resp.StatusCode != http.StatusForbidden || !strings.Contains(told, c.header+" stands twice")) {
				t.Errorf("%s: %s %q", name, resp.Status, told)
			}
			h.door.Set(func(p *enginetest.Policy) { p.Decide, p.Version = messages, 1 })
			if resp, told := h.ask(t, "POST /mcp", aCall, "Content-Type: application/json"); strings.Contains(told, "***") || strings.Contains(told, "sample") {
				t.Errorf("%s: of a server of MCP: %s %q", name, resp.Status, told)
			}
		}
	}
}

// TestPartsAreNotMasked: a part of an answer, by whatever a server takes for the wish for one,
// does not say what its values are.
func TestPartsAreNotMasked(t *testing.T) {
	h := newHouse(t)
	for path, c := range map[string]struct {
		kind, part string
		status     int
	}{
		"/part.json": {"application/json", `"bela@sample.example"`, http.StatusPartialContent},
		"/part.csv":  {"text/csv", "7,bela@sample.example\n", http.StatusPartialContent},
		"/whole":     {"application/json", `"bela@sample.example"`, http.StatusOK},
	} {
		h.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Ms-Range") == "" {
				t.Error("the resource was not asked for a part")
			}
			w.Header().Set("Content-Type", c.kind)
			w.Header().Set("Content-Range", "bytes 10-30/100")
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.part)
		})
		h.door.Set(func(p *enginetest.Policy) { p.Decide = masking })
		resp, told := h.ask(t, "GET "+path, "", "X-Ms-Range: bytes=10-30")
		if resp.StatusCode != http.StatusForbidden || strings.Contains(told, "sample") {
			t.Errorf("%s: %s %q", path, resp.Status, told)
		}
	}
}

// TestConditionsUnderMasks: what is written on a condition is not written without it, and no
// condition tells whether a guess about what is masked is right.
func TestConditionsUnderMasks(t *testing.T) {
	h := newHouse(t)
	h.mux.HandleFunc("/order", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"match":%q,"none":%q}`, r.Header.Get("If-Match"), r.Header.Get("If-None-Match"))
	})
	h.door.Set(func(p *enginetest.Policy) { p.Decide = masking })
	for _, c := range []struct{ text, header, want string }{
		{"PUT /order", "If-None-Match: *", `{"match":"","none":"*"}`},
		{"DELETE /order", "If-Match: *", `{"match":"*","none":""}`},
		{"PUT /order", `If-Match: "7"`, ""},
		{"PATCH /order", `If-None-Match: "7"`, ""},
		{"GET /order", `If-None-Match: "7"`, `{"match":"","none":""}`},
		{"HEAD /order", `If-Match: "7"`, ""},
	} {
		resp, told := h.ask(t, c.text, "", c.header)
		if refused := c.want == "" && !strings.HasPrefix(c.text, "HEAD"); refused != (resp.StatusCode == http.StatusForbidden) || !refused && told != c.want {
			t.Errorf("%s with %s: %s %s", c.text, c.header, resp.Status, told)
		}
	}
}

// TestPartsOfSecrets: nobody gets a resource's credential in pieces out of a page that quotes it,
// and what is there for everybody comes in parts as it did.
func TestPartsOfSecrets(t *testing.T) {
	h := newHouse(t)
	when := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	for path, c := range map[string]struct {
		tag  string
		when time.Time
		want int
	}{
		"/page": {"", time.Time{}, http.StatusForbidden}, "/weak": {`W/"1"`, time.Time{}, http.StatusForbidden},
		"/tagged": {`"1"`, time.Time{}, http.StatusPartialContent}, "/dated": {"", when, http.StatusPartialContent},
	} {
		h.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if c.tag != "" {
				w.Header().Set("Etag", c.tag)
			}
			http.ServeContent(w, r, "page.txt", c.when, strings.NewReader(r.Header.Get("Authorization")))
		})
		for range 2 { // the second time the head is known
			if resp, told := h.ask(t, "GET "+path, "", "Range: bytes=7-10"); resp.StatusCode != c.want || len(told) > 4 && strings.Contains(told, theSecret[:4]) {
				t.Errorf("%s: %s %q", path, resp.Status, told)
			}
		}
		if resp, told := h.ask(t, "GET "+path, ""); resp.StatusCode != http.StatusOK || strings.Contains(told, theSecret) {
			t.Errorf("all of %s: %s %q", path, resp.Status, told)
		}
		if resp, _ := h.ask(t, "GET "+path, "", "Range: bytes=1000-"); resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("more than there is of %s: %s", path, resp.Status)
		}
	}
}

// TestHeadersAreMasked: before and behind a body no more is said than in it.
func TestHeadersAreMasked(t *testing.T) {
	h := newHouse(t)
	h.mux.HandleFunc("/customer", func(w http.ResponseWriter, _ *http.Request) {
		for name, v := range map[string]string{
			"Trailer": "X-Last", "X-Email": "bela@sample.example", "X-Note": "of bela@sample.example, 7", "Location": "/customers?of=bela@sample.example",
			"Set-Cookie": "last=bela@sample.example", "Content-Type": "application/json", "Date": "Sat, 28 Nov 2026 00:00:00 GMT",
		} {
			w.Header().Set(name, v)
		}
		_, _ = io.WriteString(w, `{"email":"bela@sample.example"}`)
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("X-Last", "bela@sample.example")
	})
	star := &postern.MaskRule{Method: postern.MaskRedact, Value: "***"}
	for name, c := range map[string]struct {
		rule                     postern.ContentRule
		email, note, to, trailer string
	}{
		"by name": {
			postern.ContentRule{Fields: []postern.FieldRule{{Path: "email", Mask: star}, {Path: "X-Email", Mask: star}, {Path: "x-last", Mask: star}, {Path: "location", Mask: star}, {Path: "date", Mask: star}}},
			"***", "of bela@sample.example, 7", "/customers?of=bela@sample.example", "***",
		},
		"by what it looks like": {postern.ContentRule{Detect: []postern.DetectRule{{Kind: "email", Mask: star}}}, "***", "of ***, 7", "/customers?of=***", "***"},
	} {
		h.door.Set(func(p *enginetest.Policy) {
			p.Version++
			p.Decide = func(string, any) postern.Decision {
				return postern.Decision{Verdict: postern.VerdictAllow, Effect: postern.EffectRead, Obligations: []postern.Obligation{{Content: &c.rule}}}
			}
		})
		resp, told := h.ask(t, "GET /customer", "")
		got := []string{told, resp.Header.Get("X-Email"), resp.Header.Get("X-Note"), resp.Header.Get("Location"), resp.Trailer.Get("X-Last"), resp.Header.Get("Set-Cookie"), resp.Header.Get("Date")}
		want := []string{`{"email":"***"}`, c.email, c.note, c.to, c.trailer, "last=bela@sample.example", "Sat, 28 Nov 2026 00:00:00 GMT"}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%q\n%q", name, got, want)
		}
		if e := h.door.Last().Executions(); strings.Contains(string(e[len(e)-1].Data), "x-email: bela") {
			t.Errorf("%s: the record says %s", name, e[len(e)-1].Data)
		}
	}
}

// TestFormsThatMasksDoNotKnow: who asks for what cannot be masked is told so, and why, rather than
// cut off; and nobody waits for the first of many lines to be told that they come.
func TestFormsThatMasksDoNotKnow(t *testing.T) {
	h := newHouse(t)
	for path, c := range map[string]struct {
		status     int
		kind, said string
	}{
		"/nan": {200, "application/json", `{"email":"bela@sample.example","n":NaN}`}, "/none": {200, "application/json", ""}, "/twice": {200, "application/json", `{"a":1,"a":2}`},
		"/csv": {200, "text/csv", "email,a\nbela@sample.example,\"x\"y\n"}, "/form": {200, "application/x-www-form-urlencoded", "email=%zz&a=1"},
		"/error": {500, "application/json", `no bela@sample.example`},
	} {
		h.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			w.WriteHeader(c.status)
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, c.said)
		})
		h.door.Set(func(p *enginetest.Policy) { p.Decide = masking })
		resp, told := h.ask(t, "GET "+path, "")
		want, why := http.StatusForbidden, "masks cannot be kept: "
		if c.status >= 400 {
			want, why = c.status, "not shown because it cannot be masked"
		}
		if resp.StatusCode != want || !strings.Contains(told, why) || strings.Contains(told, "sample") {
			t.Errorf("%s: %s %q", path, resp.Status, told)
		}
	}
	told := make(chan struct{})
	h.mux.HandleFunc("/lines.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		_ = http.NewResponseController(w).Flush()
		<-told
		_, _ = io.WriteString(w, `{"email":"bela@sample.example"}`)
	})
	c := newClient(h.addr, "t.target", enginetest.Token)
	t.Cleanup(c.Close)
	resp, err := c.request(t.Context(), "GET /lines.json", nil)
	close(told)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != `{"email":"***"}` {
		t.Errorf("%q %v", b, err)
	}
}
