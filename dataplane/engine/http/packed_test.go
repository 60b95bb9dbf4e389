package http

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/posterngate/postern/dataplane/engine"
)

// TestSecretsArePacked: a resource that packs what it was asked for plainly does not hand its
// credential out unseen.
func TestSecretsArePacked(t *testing.T) {
	const said = "the key is " + theSecret + ", keep it"
	packed := func(make func(io.Writer) io.WriteCloser) []byte {
		var b bytes.Buffer
		w := make(&b)
		if _, err := io.WriteString(w, said); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	h := newHouse(t)
	h.mux.HandleFunc("/packed", func(w http.ResponseWriter, r *http.Request) {
		coding, status := r.URL.Query().Get("coding"), http.StatusOK
		body := []byte(said)
		switch coding {
		case "gzip", "x-gzip", "part":
			body = packed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
		case "deflate":
			body = packed(func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) })
		case "br":
			body = packed(func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) })
		case "zstd":
			body = packed(func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z })
		case "none":
			status = http.StatusNotModified
		}
		if coding == "part" {
			coding, status = "gzip", http.StatusPartialContent
		}
		if r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("the resource is asked for %q", r.Header.Get("Accept-Encoding"))
		}
		for _, name := range []string{"Grpc-Accept-Encoding", "Connect-Accept-Encoding"} {
			if got := r.Header.Get(name); got != "" && got != "identity" {
				t.Errorf("the resource is asked for %s: %q", name, got)
			}
		}
		if name, messages, ok := strings.Cut(coding, " of "); ok {
			w.Header().Set(messages, name)
			coding = ""
		}
		w.Header().Set("Content-Encoding", coding)
		w.Header().Set("Etag", `"packed"`)
		w.WriteHeader(status)
		_, _ = w.Write(body)
	})
	for _, coding := range []string{"gzip", "x-gzip", "deflate", "br", "zstd", "identity", "Identity"} {
		for range 2 { // the second time the head is known
			resp, told := h.ask(t, "GET /packed?coding="+coding, "", "Accept-Encoding: "+coding)
			if want := strings.ReplaceAll(said, theSecret, strings.Repeat("*", len(theSecret))); told != want {
				t.Errorf("%s: %s %q", coding, resp.Status, told)
			}
			plain := strings.EqualFold(coding, "identity")
			if has := resp.Header.Get("Content-Encoding") != "" || resp.Header.Get("Etag") != ""; has != plain {
				t.Errorf("%s: the head says %v", coding, resp.Header)
			}
		}
	}
	for _, coding := range []string{"own", "gzip, br", "part", "gzip of Grpc-Encoding", "br of Connect-Content-Encoding"} {
		resp, told := h.ask(t, "GET /packed?coding="+strings.ReplaceAll(coding, " ", "%20"), "", "Accept-Encoding: br", "Grpc-Accept-Encoding: gzip", "Connect-Accept-Encoding: gzip")
		if resp.StatusCode < 400 || !strings.Contains(told, "its credential would not be seen") || strings.Contains(told, theSecret) {
			t.Errorf("%s: %s %q", coding, resp.Status, told)
		}
	}
	for _, text := range []string{"HEAD /packed?coding=br", "GET /packed?coding=none"} {
		if resp, told := h.ask(t, text, "", "Accept-Encoding: br"); resp.StatusCode >= 400 || told != "" || resp.Header.Get("Content-Encoding") == "" {
			t.Errorf("%s: %s %q %v", text, resp.Status, told, resp.Header)
		}
	}
}

// TestSecretsAreEscaped: a page that quotes the credential does not hand it out by how it escapes it.
func TestSecretsAreEscaped(t *testing.T) {
	const secret = "k+Zx8mVbQ2rT9wLcA7nE4sYd/f=="
	var said atomic.Value
	h := newPlain(t, engine.HTTPTerms{Authority: "orders.internal", Auth: "bearer"}, func() string { return secret }, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, said.Load().(string))
	})
	for _, quoted := range []string{
		"{\"token\":\"k\\u002bZx8mVbQ2rT9wLcA7nE4sYd/f\\u003d\\u003d\"}", "<b>k&#43;Zx8mVbQ2rT9wLcA7nE4sYd/f==</b>", "k&plus;Zx8mVbQ2rT9wLcA7nE4sYd&#x2F;f&equals;&equals;", "k%2bZx8mVbQ2rT9wLcA7nE4sYd%2ff%3d%3d", secret, url.QueryEscape(secret),
	} {
		said.Store(quoted)
		if resp, told := h.ask(t, "GET /", ""); resp.StatusCode != http.StatusOK || strings.Contains(told, "Zx8mVbQ2rT9wLcA7nE4sYd") || len(told) != len(quoted) {
			t.Errorf("%q: %s %q", quoted, resp.Status, told)
		}
	}
}
