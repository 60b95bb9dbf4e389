package http

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
	"github.com/posterngate/postern/test/servers"
)

// partner is a service of somebody else's, and the authorization server before it, whose
// tokens last for seconds.
type partner struct {
	port, tokens, secret string

	mu      sync.Mutex
	issued  int
	revoked int
	failing bool // the authorization server gives a token with an error
	shown   map[string]bool
}

// fail has the authorization server refuse from now on.
func (p *partner) fail() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failing = true
}

func newPartner(t *testing.T) *partner {
	p := &partner{secret: "cs_" + rand.Text(), shown: map[string]bool{}}
	p.tokens = plain(t, func(w http.ResponseWriter, r *http.Request) {
		id, secret, ok := r.BasicAuth()
		if ok && r.URL.Path == "/revoke" && id == "postern-client" && secret == p.secret && p.seen()["Bearer "+r.PostFormValue("token")] {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.revoked++
			return
		}
		if !ok || id != "postern-client" || secret != p.secret || r.PostFormValue("grant_type") != "client_credentials" || r.PostFormValue("scope") != "orders.read" || r.PostFormValue("audience") != "partner-api" {
			http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if p.failing {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = fmt.Fprintf(w, `{"error":"invalid_scope","error_description":"no at-0%[1]s","access_token":"at-0%[1]s","token_type":"Bearer","expires_in":3}`, rand.Text())
			return
		}
		_, _ = fmt.Fprintf(w, `{"access_token":"at-%03d-%s","token_type":"Bearer","expires_in":3}`, p.issued, rand.Text())
		p.issued++
	})
	p.port = plain(t, func(w http.ResponseWriter, r *http.Request) {
		token := r.Header.Get("Authorization")
		p.mu.Lock()
		p.shown[token] = true
		p.mu.Unlock()
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "https://elsewhere.example/?t="+strings.TrimPrefix(token, "Bearer "), http.StatusFound)
			return
		}
		switch r.URL.Path {
		case "/refuse":
			w.WriteHeader(http.StatusUnauthorized)
		case "/refuse-aloud":
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token", error_description="`+token+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = io.WriteString(w, "you showed "+token)
	})
	return p
}

// ended is how many tokens that it was shown have been revoked.
func (p *partner) ended() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.revoked
}

func (p *partner) seen() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]bool{}
	for k := range p.shown {
		out[k] = true
	}
	return out
}

// mutual is a service that knows its clients by their certificates.
type mutual struct {
	port          string
	ca, cert, key []byte
}

func newMutual(t *testing.T) *mutual {
	m := &mutual{}
	dir := t.TempDir()
	cert, ca, err := servers.Certificate(filepath.Join(dir, "server"), "mutual")
	client, _, cerr := servers.Certificate(filepath.Join(dir, "client"), "client")
	if err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	m.ca = ca
	m.cert = house.Must(os.ReadFile(filepath.Join(dir, "client", "server.pem")))(t)
	m.key = house.Must(os.ReadFile(filepath.Join(dir, "client", "server.key")))(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !bytes.Equal(r.TLS.PeerCertificates[0].Raw, client.Leaf.Raw) {
			http.Error(w, "who are you?", http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, "known")
	}))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	t.Cleanup(s.Close)
	_, m.port, _ = net.SplitHostPort(s.Listener.Addr().String())
	return m
}

// awsKey reads a credentials file of AWS's form.
func awsKey(t *testing.T, file string) (id, secret string) {
	t.Helper()
	for l := range strings.Lines(string(house.Must(os.ReadFile(file))(t))) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(l), " = "); name {
		case "aws_access_key_id":
			id = value
		case "aws_secret_access_key":
			secret = value
		}
	}
	return id, secret
}
