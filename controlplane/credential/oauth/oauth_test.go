package oauth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/credential"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/secret"
)

const theSecret = "cs-do-not-show"

// theToken is what a server gives with an error.
const theToken = "at-do-not-show"

// TestIssue: what a server may say to a client's request, and what becomes of it. No error
// has the secret or a token, whatever the server quotes (CVE-2026-46405).
func TestIssue(t *testing.T) {
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	source := New(func(_ context.Context, name string) (map[string]secret.Bytes, error) {
		if name == "half" {
			return map[string]secret.Bytes{"username": secret.FromString("id")}, nil
		}
		return map[string]secret.Bytes{"username": secret.FromString("id"), "password": secret.FromString(theSecret)}, nil
	})
	for name, c := range map[string]struct {
		status int
		answer string
		secret string
		life   time.Duration // 0 is an error
	}{
		"an hour":                      {200, `{"access_token":"at","token_type":"bearer","expires_in":3600}`, "", time.Hour - 30*time.Second},
		"a minute":                     {200, `{"access_token":"at","token_type":"Bearer","expires_in":60}`, "", 54 * time.Second},
		"no end":                       {200, `{"access_token":"at","token_type":"Bearer"}`, "", 270 * time.Second},
		"no token":                     {200, `{"token_type":"Bearer"}`, "", 0},
		"a MAC token":                  {200, `{"access_token":"at","token_type":"mac"}`, "", 0},
		"a token too long":             {200, `{"access_token":"` + strings.Repeat("x", maxToken+1) + `","token_type":"Bearer"}`, "", 0},
		"refused":                      {401, `{"error":"invalid_client","error_description":"` + theSecret + `"}`, "", 0},
		"no JSON":                      {500, theSecret, "", 0},
		"refused, with one":            {400, `{"error":"invalid_scope","error_description":"not for ` + theToken + `","access_token":"` + theToken + `","token_type":"Bearer","expires_in":3600}`, "", 0},
		"an error that is none":        {200, `{"error":"access_denied","access_token":"` + theToken + `","token_type":"Bearer","expires_in":3600}`, "", 0},
		"an end in the past, with one": {200, `{"access_token":"` + theToken + `","token_type":"Bearer","expires_in":-5}`, "", 0},
		"sent elsewhere":               {307, "", "", 0},
		"half of a client":             {200, `{"access_token":"at","token_type":"Bearer"}`, "half", 0},
		"an end in the past":           {200, `{"access_token":"at","token_type":"Bearer","expires_in":-5}`, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Location", other.URL)
				w.WriteHeader(c.status)
				_, _ = fmt.Fprint(w, c.answer)
			}))
			defer srv.Close()
			got, err := source.Issue(t.Context(), credential.Request{Ref: &typesv1.CredentialRef{Oauth: &typesv1.OAuthRef{TokenUrl: srv.URL, Secret: c.secret}}})
			if c.life == 0 {
				if err == nil || got.Credential != nil || strings.Contains(err.Error(), theSecret) || strings.Contains(err.Error(), theToken) {
					t.Errorf("%v %v", got, err)
				}
				return
			}
			if err != nil || string(got.Credential.GetPassword()) != "at" {
				t.Fatalf("%v %v", got, err)
			}
			if left := time.Until(got.Expires); left > c.life || left < c.life-time.Minute/2 {
				t.Errorf("it ends in %s, want %s", left, c.life)
			}
			if end, err := source.Renew(t.Context(), got.Handle, time.Now().Add(24*time.Hour)); err != nil || !end.Equal(got.Expires) {
				t.Errorf("renewed until %s, %v", end, err)
			}
		})
	}
	if elsewhere > 0 {
		t.Error("the secret was sent to another server than the one that is named")
	}
}

// TestRevoke: a token is ended at its server, as the client that got it, in the way that the
// server reads; not after its end, and not where there is no place for it.
func TestRevoke(t *testing.T) {
	source := New(func(context.Context, string) (map[string]secret.Bytes, error) {
		return map[string]secret.Bytes{"username": secret.FromString("id"), "password": secret.FromString(theSecret)}, nil
	})
	for name, c := range map[string]struct {
		answers []int // one a try
		form    bool  // the server reads the client in the form
		nowhere bool
		life    int
		tries   int
		err     bool
	}{
		"revoked":         {answers: []int{200}, life: 3600, tries: 1},
		"by form":         {answers: []int{401, 200}, form: true, life: 3600, tries: 2},
		"not now":         {answers: []int{503}, life: 3600, tries: 1, err: true},
		"never":           {answers: []int{401, 401}, form: true, life: 3600, tries: 2, err: true},
		"sent elsewhere":  {answers: []int{307}, life: 3600, tries: 1, err: true},
		"no place for it": {nowhere: true, life: 3600},
	} {
		t.Run(name, func(t *testing.T) {
			tries := 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/token" {
					w.Header().Set("Content-Type", "application/json")
					_, _ = fmt.Fprintf(w, `{"access_token":"at","token_type":"Bearer","expires_in":%d}`, c.life)
					return
				}
				id, key, basic := r.BasicAuth()
				last := c.form && tries == 1
				if last {
					id, key = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
				}
				if id != "id" || key != theSecret || !last && !basic || r.PostFormValue("token") != "at" {
					t.Errorf("try %d: %q %q", tries, id, r.PostForm)
				}
				w.Header().Set("Location", "http://127.0.0.1:1/")
				w.WriteHeader(c.answers[min(tries, len(c.answers)-1)])
				tries++
			}))
			defer srv.Close()
			ref := &typesv1.OAuthRef{TokenUrl: srv.URL + "/token", RevocationUrl: srv.URL + "/revoke"}
			if c.nowhere {
				ref.RevocationUrl = ""
			}
			got, err := source.Issue(t.Context(), credential.Request{Ref: &typesv1.CredentialRef{Oauth: ref}, Record: kept})
			if err != nil {
				t.Fatal(err)
			}
			err = source.Revoke(t.Context(), got.Handle)
			if (err != nil) != c.err || tries != c.tries || err != nil && (strings.Contains(err.Error(), theSecret) || strings.Contains(err.Error(), "at\"")) {
				t.Errorf("%d tries: %v", tries, err)
			}
		})
	}
	over, err := (&handle{End: time.Now().Add(-time.Hour), URL: "http://127.0.0.1:1/", Token: []byte("at")}).bytes()
	if err != nil || source.Revoke(t.Context(), over) != nil {
		t.Error("one that is over is asked for")
	}
	if source.Revoke(t.Context(), []byte("nonsense")) == nil {
		t.Error("a damaged handle is taken")
	}
}

func kept(context.Context, []byte) error { return nil }

// TestOverBeforeItCame: a token whose lease ended while the server made it is revoked by what
// was recorded, or at once where the lease can have nothing recorded any more, also for a
// caller that is gone.
func TestOverBeforeItCame(t *testing.T) {
	source := New(func(context.Context, string) (map[string]secret.Bytes, error) {
		return map[string]secret.Bytes{"username": secret.FromString("id"), "password": secret.FromString(theSecret)}, nil
	})
	var revoked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("token") == "at" {
			revoked.Add(1)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"access_token":"at","token_type":"Bearer","expires_in":3600}`)
	}))
	defer srv.Close()
	ref := &typesv1.CredentialRef{Oauth: &typesv1.OAuthRef{TokenUrl: srv.URL, RevocationUrl: srv.URL}}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := source.Issue(ctx, credential.Request{Ref: ref, Record: func(context.Context, []byte) error {
		cancel()
		return errors.New("the lease has ended")
	}})
	if err == nil || !strings.Contains(err.Error(), "the lease has ended") || revoked.Load() != 1 {
		t.Errorf("%d revoked: %v", revoked.Load(), err)
	}
	var recorded []byte
	got, err := source.Issue(t.Context(), credential.Request{Ref: ref, Record: func(_ context.Context, handle []byte) error {
		recorded = handle
		return nil
	}})
	if err != nil || string(recorded) != string(got.Handle) {
		t.Fatalf("recorded %q, not %q: %v", recorded, got.Handle, err)
	}
	if err := source.Revoke(t.Context(), recorded); err != nil || revoked.Load() != 2 {
		t.Errorf("%d revoked: %v", revoked.Load(), err)
	}
}

// TestNothingStaysOpen: a connection ends with what it was made for.
func TestNothingStaysOpen(t *testing.T) {
	source := New(func(context.Context, string) (map[string]secret.Bytes, error) {
		return map[string]secret.Bytes{"username": secret.FromString("id"), "password": secret.FromString(theSecret)}, nil
	})
	var open, made atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"access_token":"at","token_type":"Bearer","expires_in":3600}`)
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			open.Add(1)
			made.Add(1)
		case http.StateClosed:
			open.Add(-1)
		case http.StateActive, http.StateIdle, http.StateHijacked:
		}
	}
	srv.Start()
	defer srv.Close()
	ref := &typesv1.CredentialRef{Oauth: &typesv1.OAuthRef{TokenUrl: srv.URL, RevocationUrl: srv.URL}}
	for range 3 {
		got, err := source.Issue(t.Context(), credential.Request{Ref: ref, Record: kept})
		if err != nil {
			t.Fatal(err)
		}
		if err := source.Revoke(t.Context(), got.Handle); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(time.Minute); open.Load() > 0; <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d connections stay open", open.Load(), made.Load())
		}
	}
	if made.Load() == 0 {
		t.Error("no connection was seen")
	}
}
