package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestIssuersArePrivate: nothing of a login goes where others could read it, whoever says so.
func TestIssuersArePrivate(t *testing.T) {
	meta := metadata{}
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	meta.Issuer = srv.URL
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(meta) })
	mux.Handle("/away", http.RedirectHandler("http://issuer.example/", http.StatusFound))
	hc, err := (&app{env: Env{Getenv: func(string) string { return "" }}}).issuerClient()
	if err != nil {
		t.Fatal(err)
	}
	for page, ok := range map[string]bool{srv.URL + "/authorize": true, "https://issuer.example/authorize": true, "http://issuer.example/authorize": false, "javascript:x": false, "": false, "%": false} {
		meta.AuthURL = page
		if _, err := discover(t.Context(), hc, srv.URL); (err == nil) != ok {
			t.Errorf("sign in at %q: %v", page, err)
		}
	}
	if _, err := discover(t.Context(), hc, "http://issuer.example"); err == nil || !strings.Contains(err.Error(), "is not https") {
		t.Errorf("an issuer in the open: %v", err)
	}
	for path, want := range map[string]string{srv.URL + "/away": "is not https", "http://192.0.2.1/token": "is not https"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := hc.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// TestRenewal: an issuer that cannot be reached does not end a login, and one that says no does.
func TestRenewal(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error": "invalid_grant"}`))
	}))
	t.Cleanup(srv.Close)
	away := httptest.NewServer(nil)
	away.Close()
	for at, want := range map[string]int{srv.URL: exitDenied, away.URL: exitUnreachable, "http://192.0.2.1": exitDenied} {
		a := &app{home: t.TempDir(), addr: "https://postern.example", env: Env{Getenv: func(string) string { return "" }}}
		if err := a.saveTokens(t.Context(), &tokens{Addr: a.addr, API: token{ID: "old", Refresh: "r", TokenURL: at + "/token"}}); err != nil {
			t.Fatal(err)
		}
		_, err := a.apiToken(t.Context())
		if r := a.reportOf(nil, err); r.Exit != want || !strings.Contains(r.Error, "could not be renewed") || r.Hint == "" {
			t.Errorf("%s: %+v, want exit code %d", at, r, want)
		}
	}
}

// TestLocalSocket: a socket is for its owner alone, whatever else is made is as it was.
func TestLocalSocket(t *testing.T) {
	before := syscall.Umask(0)
	defer syscall.Umask(before)
	dir := t.TempDir()
	ln, err := bindLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if info, err := os.Stat(filepath.Join(dir, ".s.PGSQL.5432")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if mask := syscall.Umask(0); mask != 0 {
		t.Errorf("the mask is %o", mask)
	}
}
