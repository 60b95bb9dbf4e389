package http

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/posterngate/postern/deploy/dev/idp"
	"github.com/posterngate/postern/test/e2e/house"
)

// advisories has a case for each class of published advisories on gateways and servers
// that could be one of ours: what was sent there is refused here, and others are unharmed.
func (s *service) advisories(t *testing.T) {
	token := s.DataToken(t, "alice")
	for name, c := range map[string]struct {
		task, head, body string
		status           int
		says             string
	}{
		"GHSA-pxq7-h93f-9jrg a fragment in the path":        {"", "GET /api/admin/users#/api/orders/7 HTTP/1.1", "", 400, "Postern-Code"},
		"GHSA-7rh7-c77v-6434 what is allowed in the query":  {"", "GET /api/admin/users?x=/api/orders/7 HTTP/1.1", "", 403, "does not allow"},
		"GHSA-7x63-xv5r-3p2x another path in a header":      {"", "GET /api/admin/users HTTP/1.1\r\nX-Forwarded-Uri: /api/orders/7\r\nX-Original-Url: /api/orders/7", "", 403, "does not allow"},
		"GHSA-5hvv-m4w4-gf6v a program that is let through": {"", "GET /api/admin/users HTTP/1.1\r\nUser-Agent: GoogleHC/1.0", "", 403, "does not allow"},
		"GHSA-vjrc-mh2v-45x6 names with underscores":        {"", "GET /api/orders/7/status HTTP/1.1\r\nX_Forwarded_User: root\r\nX-Forwarded_Email: root@x", "", 200, `"id":7`},
		"another method in a header":                        {"", "GET /api/orders/7 HTTP/1.1\r\nX_Http_Method_Override: DELETE", "", 400, "Postern-Code"},
		"CVE-2026-3605 dots in the path":                    {"", "GET /api/orders/../admin/users HTTP/1.1", "", 400, "Postern-Code"},
		"GHSA-xp3c-3jw3-4vcr a listing past what is denied": {"", "GET /api/admin/ HTTP/1.1", "", 403, "does not allow"},
		"GHSA-xp3c-3jw3-4vcr another method to list":        {"", "LIST /api/admin/users HTTP/1.1", "", 403, "does not allow"},
		"CVE-2025-6203 JSON that is nested too deep":        {"fix-order", "PATCH /api/orders/7 HTTP/1.1\r\nContent-Type: application/json", `{"status":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, 400, "Postern-Code"},
		"a body over what rules read":                       {"fix-order", "PATCH /api/orders/7 HTTP/1.1\r\nContent-Type: application/json", `{"status":"paid","x":"` + strings.Repeat("x", 2<<20) + `"}`, 400, "longer than"},
		"headers without an end":                            {"", "GET /api/orders/7 HTTP/1.1\r\nX-Long: " + strings.Repeat("x", 2<<20), "", 400, "too long"},
		"headers without number":                            {"", "GET /api/orders/7 HTTP/1.1" + strings.Repeat("\r\nX: y", 20000), "", 400, "too long"},
		"two lengths":                                       {"fix-order", "PATCH /api/orders/7 HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 5", `{"status":"paid"}`, 400, "Postern-Code"},
		"a length and chunks":                               {"fix-order", "PATCH /api/orders/7 HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked", "0\r\n\r\n", 400, "Postern-Code"},
		"an absolute target":                                {"", "GET https://admin.internal/api/orders/7 HTTP/1.1", "", 400, "Postern-Code"},
		"a tunnel":                                          {"", "CONNECT admin.internal:443 HTTP/1.1", "", 400, "Postern-Code"},
		"another protocol by upgrade":                       {"", "GET /api/orders/7 HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", "", 403, "Postern-Code"},
		"encoded twice":                                     {"", "GET /api/orders/%252e%252e/admin/users HTTP/1.1", "", 400, "Postern-Code"},
		"an empty segment":                                  {"", "GET /api//orders/7 HTTP/1.1", "", 400, "Postern-Code"},
		"a parameter of the path":                           {"", "GET /api/orders/7;x=1 HTTP/1.1", "", 400, "Postern-Code"},
		"a NUL in the path":                                 {"", "GET /api/orders/7%00.json HTTP/1.1", "", 400, "Postern-Code"},
		"a name twice, in two cases":                        {"fix-order", "PATCH /api/orders/7 HTTP/1.1\r\nContent-Type: application/json", `{"status":"paid","STATUS":"void"}`, 400, "twice in one object"},
		"two hosts":                                         {"", "GET /api/orders/7 HTTP/1.1\r\nHost: admin.internal", "", 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.task == "" {
				c.task = "read-orders"
			}
			conn := s.secure(t, "http/1.1")
			length := ""
			if c.body != "" {
				length = fmt.Sprintf("\r\nContent-Length: %d", len(c.body))
			}
			go func() { // the node may answer and hang up before it has all of it
				_, _ = fmt.Fprintf(conn, "%s%s\r\nHost: %s--orders-api.%s\r\nAuthorization: Bearer %s\r\n\r\n%s", c.head, length, c.task, s.Nodes[0].HTTPDomain, token, c.body)
			}()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				if c.status < 400 {
					t.Fatal(err)
				}
				return // cut off
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != c.status || !strings.Contains(fmt.Sprint(resp.Header)+string(b), c.says) {
				t.Errorf("%s %s", resp.Status, b)
			}
		})
	}
	t.Run("GHSA-c5c4-8r6x-56w3 two at-signs in an address", func(t *testing.T) {
		for who, code := range map[string]string{"alice": "200", "mallory": "403"} {
			if r := s.curl(t, who, "by-address", "/api/orders/7/status"); !strings.HasSuffix(r.Out, "\n"+code) {
				t.Errorf("%s: %+v, want %s", who, r, code)
			}
		}
	})
	t.Run("CVE-2024-47616 tokens of other surfaces", func(t *testing.T) {
		for what, token := range map[string]string{
			"of the API": s.APIToken(t, "alice"), "of another client": house.Must(idp.SignIn(t.Context(), s.Issuer, idp.SharedClient, "alice"))(t),
			"of a node that joins": "pst_join_" + strings.Repeat("a", 40), "a browser's": "psb_" + strings.Repeat("a", 40), "a grant's that was never made": "pst_" + strings.Repeat("a", 40),
		} {
			r := house.Finish(t, exec.Command("curl", "--silent", "--show-error", "--max-time", "60", "--cacert", s.CAFile, "--write-out", "\n%{http_code}", "--header", "Authorization: Bearer "+token,
				"https://read-orders--orders-api."+s.Nodes[0].HTTPDomain+"/api/orders/7/status"))
			if !strings.HasSuffix(r.Out, "\n401") {
				t.Errorf("one %s: %+v", what, r)
			}
		}
	})
	t.Run("a chunk with an extension", func(t *testing.T) {
		conn := s.secure(t, "http/1.1")
		_, _ = fmt.Fprintf(conn, "PATCH /api/orders/7 HTTP/1.1\r\nHost: fix-order--orders-api.%s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n11;a=b\r\n{\"status\":\"paid\"}\r\n0\r\n\r\n", s.Nodes[0].HTTPDomain, token)
		back := bufio.NewReader(conn)
		resp, err := http.ReadResponse(back, nil)
		if err != nil {
			return // cut off
		}
		defer resp.Body.Close()
		if _, _ = io.Copy(io.Discard, resp.Body); resp.StatusCode != http.StatusBadRequest {
			t.Error(resp.Status)
		}
		if more, err := back.ReadByte(); err == nil {
			t.Errorf("the connection goes on with %q", more)
		}
	})
	t.Run("CVE-2026-33186 a path without a slash", func(t *testing.T) {
		for _, path := range []string{"api/orders/7/status", "orders.Admin/Delete", "*", ""} {
			conn := s.secure(t, "h2")
			fr := begin(conn)
			fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			var block bytes.Buffer
			enc := hpack.NewEncoder(&block)
			for _, f := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "read-orders--orders-api." + s.Nodes[0].HTTPDomain}, {":path", path}, {"content-type", "application/grpc"}, {"authorization", "Bearer " + token}} {
				_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
			}
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
			for {
				f, err := fr.ReadFrame()
				if err != nil {
					break
				}
				if h, ok := f.(*http2.MetaHeadersFrame); ok {
					if status, said := h.PseudoValue("status"), fmt.Sprint(h.RegularFields()); status == "200" && !strings.Contains(said, "grpc-status") || !strings.Contains(said, "postern-code") && status[0] != '4' {
						t.Errorf("%q: %s %s", path, status, said)
					}
					break
				}
				if _, ok := f.(*http2.RSTStreamFrame); ok {
					break
				}
			}
		}
	})
	if r := s.curl(t, "alice", "read-orders", "/api/orders/7/status"); !strings.HasSuffix(r.Out, "\n200") {
		t.Errorf("somebody else is harmed: %+v", r)
	}
}

// begin speaks HTTP/2 by hand.
func begin(c *tls.Conn) *http2.Framer {
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	_, _ = io.WriteString(c, http2.ClientPreface)
	fr := http2.NewFramer(c, c)
	_ = fr.WriteSettings()
	return fr
}
