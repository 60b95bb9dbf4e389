package vault_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/controlplane/credential/vault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// TestErrorsHaveNoSecret: what comes with an error from Vault, or from what stands before it, is
// in no error of ours (CVE-2026-46405).
func TestErrorsHaveNoSecret(t *testing.T) {
	const canary = "hvs.do-not-show"
	for name, c := range map[string]struct {
		status       int
		answer, says string
	}{
		"a token beside":           {400, `{"errors":["no such role"],"auth":{"client_token":"` + canary + `"}}`, "no such role"},
		"a secret in its place":    {403, `{"data":{"password":"` + canary + `"}}`, "403"},
		"no JSON":                  {400, "the password is " + canary, "not one of Vault's"},
		"cut off":                  {500, `{"data":{"password":"` + canary, "not one of Vault's"},
		"errors of another form":   {400, `{"errors":{"token":"` + canary + `"}}`, "not one of Vault's"},
		"something else is there":  {404, "<p>" + canary, "there is nothing"},
		"what is there is deleted": {404, `{"data":{"metadata":{"deletion_time":"2026-01-01T00:00:00Z"}}}`, "database/creds/reader"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := ""
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasSuffix(r.URL.Path, "/auth/token/lookup-self"):
					_, _ = io.WriteString(w, `{"data":{"ttl":3600,"renewable":false}}`)
				case strings.Contains(r.URL.Path, "/auth/token/create"):
					_, _ = io.WriteString(w, `{"auth":{"client_token":"t","accessor":"a","lease_duration":3600,"orphan":true,"token_type":"service"}}`)
				default:
					asked = r.URL.Path
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, c.answer)
				}
			}))
			defer srv.Close()
			src, err := vault.New(vault.Config{Address: srv.URL, TokenFile: writeFile(t, "root"), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			got, err := src.Issue(t.Context(), credential.Request{
				Ref: &typesv1.CredentialRef{Vault: &typesv1.VaultRef{Mount: "database", Role: "reader"}}, Until: time.Now().Add(time.Hour),
				Record: func(context.Context, []byte) error { return nil },
			})
			if asked != "/v1/database/creds/reader" || err == nil || got.Credential != nil || strings.Contains(err.Error(), canary) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", asked, err)
			}
		})
	}
}
