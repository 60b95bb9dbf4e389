package http

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"sigs.k8s.io/yaml"

	"github.com/posterngate/postern/test/e2e/house"
)

// oddWorld is a resource that answers as no service should, behind a task that masks.
const oddWorld = `
apiVersion: postern/v1
kind: Resource
metadata: {name: odd}
spec: {protocol: http, endpoint: {host: 127.0.0.1, port: %d, tls: {mode: disable}, http: {auth: {scheme: none}}}}
---
apiVersion: postern/v1
kind: Task
metadata: {name: odd-orders}
spec:
  purpose: odd answers
  resources: {names: [odd]}
  permit:
    - {methods: [GET], path: /api/orders/*, mask: {/customer/email: email, email: email}}
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: odd}
spec: {subjects: [{group: analysts}], tasks: [odd-orders]}
---
apiVersion: postern/v1
kind: Task
metadata: {name: by-address}
spec:
  purpose: what everybody of the company may see
  resources: {names: [orders-api]}
  permit: [{methods: [GET], path: /api/orders/*/status}]
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: by-address}
spec:
  subjects: [{subject: alice}, {subject: mallory}]
  tasks: [by-address]
  when: subject.email.endsWith("@sample.example")
`

// busy counts requests that are under way at the resource, and how many at once there were.
type busy struct{ now, most, all atomic.Int64 }

// ServeHTTP answers nothing for as long as somebody waits for it.
func (b *busy) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	n := b.now.Add(1)
	defer b.now.Add(-1)
	b.all.Add(1)
	for {
		most := b.most.Load()
		if n <= most || b.most.CompareAndSwap(most, n) {
			break
		}
	}
	<-r.Context().Done()
}

// odd answers each path in its own way, always with a canary.
func odd(t *testing.T, b *busy) int {
	t.Helper()
	json := func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/json") }
	mux := http.NewServeMux()
	mux.Handle("/api/orders/never", b)
	mux.HandleFunc("/api/orders/twice", func(w http.ResponseWriter, _ *http.Request) {
		json(w)
		_, _ = fmt.Fprintf(w, `{"customer":{"email":"***","email":%q}}`, house.CanaryEmail)
	})
	mux.HandleFunc("/api/orders/escaped", func(w http.ResponseWriter, _ *http.Request) {
		json(w)
		_, _ = fmt.Fprintf(w, `{"customer":{"\u0065mail":%q}}`, house.CanaryEmail)
	})
	mux.HandleFunc("/api/orders/table", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/csv")
		_, _ = fmt.Fprintf(w, "id,customer.email\n1,%s\n", house.CanaryEmail)
	})
	mux.HandleFunc("/api/orders/huge", func(w http.ResponseWriter, _ *http.Request) {
		json(w)
		_, _ = io.WriteString(w, `[{"n":0}`)
		for i := range 4000 { // cut in the middle of each value
			_, _ = fmt.Fprintf(w, `,{"n":%d,"email":"%s`, i, house.CanaryEmail[:7])
			_ = http.NewResponseController(w).Flush()
			_, _ = fmt.Fprintf(w, `%s","pad":%q}`, house.CanaryEmail[7:], strings.Repeat("x", 500))
		}
		_, _ = io.WriteString(w, `]`)
	})
	mux.HandleFunc("/api/orders/boom", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "panic: order of "+house.CanaryEmail, http.StatusInternalServerError)
	})
	mux.HandleFunc("/api/orders/gzip", func(w http.ResponseWriter, _ *http.Request) {
		json(w)
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = fmt.Fprintf(z, `{"customer":{"email":%q}}`, house.CanaryEmail)
		_ = z.Close()
	})
	mux.HandleFunc("/api/orders/bomb", func(w http.ResponseWriter, _ *http.Request) {
		json(w)
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, `{"pad":[`)
		blanks := make([]byte, 64<<10)
		for i := range blanks {
			blanks[i] = ' '
		}
		for range 2048 { // 128 MiB, of 128 KiB
			_, _ = z.Write(blanks)
		}
		_, _ = io.WriteString(z, `1]}`)
		_ = z.Close()
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

// An evasion is one entry of the catalogue.
type evasion struct {
	ID, Class, Host, Task, Resource, Send, Body, Want string
}

// evasions: nothing is missed, nothing leaks, and what is allowed is not refused.
func (s *service) evasions(t *testing.T) {
	s.Serves(t, "odd")
	var all []evasion
	if err := yaml.UnmarshalStrict(house.Must(os.ReadFile("testdata/evasions.yaml"))(t), &all); err != nil {
		t.Fatal(err)
	}
	missed, leaks, alarms := 0, 0, 0
	for _, e := range all {
		t.Run(e.ID, func(t *testing.T) {
			status, code, text := s.say(t, &e)
			if found := house.Leaks(text); len(found) > 0 {
				leaks++
				t.Errorf("%v leaked", found)
			}
			switch {
			case e.Want == "mask" && (status != http.StatusOK || !strings.Contains(text, "***")):
				alarms++
				t.Errorf("%d %s: %.300s", status, code, text)
			case e.Want == "deny" && (status < 400 || status > 499 || code == ""):
				missed++
				t.Errorf("%d %s: %.300s", status, code, text)
			}
		})
	}
	t.Logf("missed=%d leaks=%d false_alarms=%d", missed, leaks, alarms)
	t.Run("HTTP-028", func(t *testing.T) { s.frames(t) })
}

// secure is a connection to the node's listener.
func (s *service) secure(t *testing.T, protocol string) *tls.Conn {
	t.Helper()
	cfg := s.TLS()
	cfg.NextProtos, cfg.ServerName = []string{protocol}, "postern.localhost"
	c := house.Must(tls.Dial("tcp", s.Nodes[0].HTTP, cfg))(t)
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// say sends an entry as it stands.
func (s *service) say(t *testing.T, e *evasion) (status int, code, text string) {
	t.Helper()
	if e.Task == "" {
		e.Task, e.Resource = "read-orders", "orders-api"
	}
	if e.Host == "" {
		e.Host = e.Task + "--" + e.Resource + "." + s.Nodes[0].HTTPDomain
	}
	c := s.secure(t, "http/1.1")
	_, _ = fmt.Fprintf(c, "%s\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n%s", e.Send, e.Host, s.DataToken(t, "alice"), e.Body)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return http.StatusBadRequest, "closed", ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body) // an answer that is broken off counts for what there was
	return resp.StatusCode, resp.Header.Get("Postern-Code"), string(b)
}

// frames sends headers of HTTP/2 that would be others in HTTP/1.1.
func (s *service) frames(t *testing.T) {
	token := s.DataToken(t, "alice")
	for name, fields := range map[string][][2]string{
		"line end in the path":  {{":path", "/api/orders/1 HTTP/1.1\r\nX: y"}},
		"line end in a value":   {{"x-a", "b\r\nx-c: d"}},
		"path without a slash":  {{":path", "api/orders/1"}},
		"two paths":             {{":path", "/api/orders/1"}, {":path", "/api/admin/users"}},
		"connection":            {{"connection", "keep-alive"}},
		"transfer-encoding":     {{"transfer-encoding", "chunked"}},
		"upper case":            {{"X-Upper", "1"}},
		"authority and host":    {{"host", "admin.internal"}},
		"unknown pseudo header": {{":odd", "1"}},
	} {
		c := s.secure(t, "h2")
		_, _ = io.WriteString(c, http2.ClientPreface)
		fr := http2.NewFramer(c, c)
		fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		_ = fr.WriteSettings()
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		given := map[string]bool{}
		for _, f := range fields {
			given[f[0]] = true
		}
		base := [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "read-orders--orders-api." + s.Nodes[0].HTTPDomain}, {":path", "/api/orders/1/status"}}
		var regular [][2]string
		for _, f := range fields {
			if strings.HasPrefix(f[0], ":") {
				base = append(base, f)
			} else {
				regular = append(regular, f)
			}
		}
		for _, f := range append(append(base, [2]string{"authorization", "Bearer " + token}), regular...) {
			if f[0] == ":path" && given[":path"] && f[1] == "/api/orders/1/status" {
				continue
			}
			_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				break // the connection has ended
			}
			if h, ok := f.(*http2.MetaHeadersFrame); ok {
				if status := h.PseudoValue("status"); !strings.HasPrefix(status, "4") && name != "authority and host" {
					t.Errorf("%s: answered %s", name, status)
				}
				break
			}
			if _, ok := f.(*http2.RSTStreamFrame); ok {
				break
			}
			if _, ok := f.(*http2.GoAwayFrame); ok {
				break
			}
		}
	}
}
