package wall

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/credential"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// walls answers commands as a wall would, and keeps them.
type walls struct {
	answer *nodev1.CommandResult
	err    error
	asked  []*nodev1.Command
}

func (w *walls) Wall(_ context.Context, _ postern.ResourceName, c *nodev1.Command) (*nodev1.CommandResult, error) {
	w.asked = append(w.asked, c)
	return w.answer, w.err
}

func (w *walls) Version() postern.Version { return postern.Version{Epoch: "e", Revision: 7} }

func request(record func([]byte) error) credential.Request {
	return credential.Request{
		Lease: "l-abcdefgh1234", Task: "report", Resource: "warehouse", Until: time.Now().Add(time.Hour),
		Record: func(_ context.Context, h []byte) error { return record(h) },
	}
}

// The password opens what the wall was told, which is no password.
func TestIssue(t *testing.T) {
	w := &walls{answer: &nodev1.CommandResult{Done: true, Account: "postern_x_l_1"}}
	var recorded []byte
	got, err := New(w).Issue(t.Context(), request(func(h []byte) error {
		if len(w.asked) > 0 {
			t.Error("a login was made before its handle was kept")
		}
		recorded = h
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	made := w.asked[0].GetMakeLogin()
	if got.Credential.GetAccount() != "postern_x_l_1" || made.GetTask() != "report" || made.GetVersion().GetRevision() != 7 || string(got.Handle) != string(recorded) {
		t.Errorf("%v, asked %v", got.Credential.GetAccount(), made)
	}
	parts := regexp.MustCompile(`^SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)$`).FindStringSubmatch(made.GetVerifier())
	if parts == nil {
		t.Fatalf("verifier %q", made.GetVerifier())
	}
	rounds, _ := strconv.Atoi(parts[1])
	salt, _ := base64.StdEncoding.DecodeString(parts[2])
	salted, err := pbkdf2.Key(sha256.New, string(got.Credential.GetPassword()), salt, rounds, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	if base64.StdEncoding.EncodeToString(stored[:]) != parts[3] || base64.StdEncoding.EncodeToString(mac(salted, "Server Key")) != parts[4] {
		t.Error("the verifier is not that of the password")
	}
	if strings.Contains(w.asked[0].String(), string(got.Credential.GetPassword())) || len(got.Credential.GetPassword()) < 20 {
		t.Error("the wall was told the password, or it is short")
	}
}

func TestIssueFails(t *testing.T) {
	w := &walls{answer: &nodev1.CommandResult{Done: true, Account: "a"}}
	if _, err := New(w).Issue(t.Context(), request(func([]byte) error { return errors.New("disk full") })); err == nil || len(w.asked) > 0 {
		t.Errorf("what cannot be kept is made: %v, %d", err, len(w.asked))
	}
	for _, w := range []*walls{{err: errors.New("nobody there")}, {answer: &nodev1.CommandResult{Error: "no"}}, {answer: &nodev1.CommandResult{Done: true}}, {answer: &nodev1.CommandResult{Account: "a"}}} {
		if got, err := New(w).Issue(t.Context(), request(func([]byte) error { return nil })); err == nil || got.Credential != nil {
			t.Errorf("%+v lends %v", w.answer, got.Credential.GetAccount())
		}
	}
}

func TestRevoke(t *testing.T) {
	w := &walls{answer: &nodev1.CommandResult{Done: true}}
	if err := New(w).Revoke(t.Context(), []byte(`{"resource":"warehouse","lease":"l-1"}`)); err != nil || w.asked[0].GetDropLogin().GetLease() != "l-1" {
		t.Errorf("%v, asked %v", err, w.asked)
	}
	for _, h := range []string{"", "{}", "x", `{"resource":"warehouse"}`} {
		if err := New(w).Revoke(t.Context(), []byte(h)); err == nil {
			t.Errorf("handle %q revokes something", h)
		}
	}
	if err := New(&walls{answer: &nodev1.CommandResult{Error: "later"}}).Revoke(t.Context(), []byte(`{"lease":"l-1"}`)); err == nil {
		t.Error("a wall that did not do it has done it")
	}
}
