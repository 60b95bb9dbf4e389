package sealed

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

const canary = "canary-8c1f03"

func putSecret(t *testing.T, s store.Store, k Keeper, name string, data map[string]string) {
	t.Helper()
	o := object.Bare("secret", name)
	o.GetSecret().Spec = &typesv1.SecretSpec{Data: data}
	if err := SealSecret(t.Context(), k, o.GetSecret()); err != nil {
		t.Fatal(err)
	}
	key, value, err := store.EncodeObject(o)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(value, []byte(canary)) {
		t.Errorf("secret %s is stored in clear", name)
	}
	if _, err := s.Commit(t.Context(), store.Op{Key: key, Value: value, If: store.AnyRevision}); err != nil {
		t.Fatal(err)
	}
}

func TestSource(t *testing.T) {
	k := openKeeper(t, filepath.Join(t.TempDir(), "k"))
	s := storetest.NewMemory()
	putSecret(t, s, k, "crm", map[string]string{"username": "app", "password": canary})
	putSecret(t, s, k, "half", map[string]string{"password": canary})
	putSecret(t, s, k, "cert", map[string]string{"username": "app", "certificate": "C", "privateKey": canary})
	src := NewSource(s, k)
	for _, c := range []struct{ name, want string }{
		{"crm", ""}, {"cert", ""}, {"half", "is no login"}, {"none", "there is no secret"},
	} {
		got, err := src.Issue(t.Context(), credential.Request{Ref: &typesv1.CredentialRef{Sealed: c.name}})
		if c.want == "" {
			if err != nil || got.Credential.GetAccount() != "app" {
				t.Errorf("%s: %v, %v", c.name, got.Credential.GetAccount(), err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: error = %v, want one with %q", c.name, err, c.want)
		}
	}
}

func TestSecretOpensUnderItsNameAlone(t *testing.T) {
	k := openKeeper(t, filepath.Join(t.TempDir(), "k"))
	o := object.Bare("secret", "a")
	o.GetSecret().Spec = &typesv1.SecretSpec{Data: map[string]string{"value": canary}}
	if err := SealSecret(t.Context(), k, o.GetSecret()); err != nil {
		t.Fatal(err)
	}
	got, err := OpenSecret(t.Context(), k, o.GetSecret())
	if err != nil || string(got["value"].Reveal()) != canary {
		t.Errorf("opened %v, %v", got, err)
	}
	moved := proto.CloneOf(o)
	moved.GetSecret().Metadata.Name = "b"
	if _, err := OpenSecret(t.Context(), k, moved.GetSecret()); err == nil {
		t.Error("a sealed value opened in another object")
	}
	big := object.Bare("secret", "big")
	big.GetSecret().Spec = &typesv1.SecretSpec{Data: map[string]string{"value": strings.Repeat("x", MaxDataBytes)}}
	if err := SealSecret(t.Context(), k, big.GetSecret()); err == nil {
		t.Error("an object beyond the bound was sealed")
	}
}
