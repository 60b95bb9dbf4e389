// Package clients speaks to the public API as others would: with curl, with buf curl, and
// with the clients that Go has. RoundTrip does the same with each.
package clients

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

// A Client speaks to the API in its own way. Errors come as a code in gRPC's words, such
// as "aborted", and a text; "" is none.
type Client interface {
	// Call calls a method with one answer.
	Call(ctx context.Context, method string, req, resp proto.Message) (code, text string)
	// Watch opens PolicyService/Watch; next waits for one message.
	Watch(t *testing.T, req *apiv1.WatchRequest) (next func() *apiv1.WatchResponse)
}

// Broken is the code where a client failed before it had an answer.
const Broken = "client"

const prefix = "/postern.api.v1."

// An API is where it is, and with whose token.
type API struct {
	Addr   string // URL
	CAFile string
	HTTP   *http.Client // trusts CAFile, sends no token
	Token  string       // none where empty
}

func (a API) url(method string) string { return a.Addr + prefix + method }

func (a API) tls(t *testing.T) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(a.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}

func mask(name, value string) *typesv1.Object {
	o := object.Bare("mask", name)
	o.GetMask().Spec = &typesv1.MaskSpec{Method: "redact", Value: value}
	return o
}

// RoundTrip creates, updates, is refused with an old etag, tries without doing, and
// watches all of it.
func RoundTrip(t *testing.T, c Client, name string) {
	ctx := t.Context()
	next := c.Watch(t, &apiv1.WatchRequest{Kinds: []string{"mask"}})
	for next().GetEvent() != "synced" {
	}
	fine := func(code, text string) {
		t.Helper()
		if code != "" {
			t.Fatalf("%s: %s", code, text)
		}
	}
	event := func(want, value string) {
		t.Helper()
		e := next()
		if e.GetEvent() != want || object.Name(e.GetObject()) != name || e.GetObject().GetMask().GetSpec().GetValue() != value || e.GetVersion().GetRevision() == 0 {
			t.Fatalf("the watch tells %v, want %s of %s", e, want, name)
		}
	}

	var tried typesv1.Object
	fine(c.Call(ctx, "PolicyService/Create", &apiv1.CreateRequest{Object: mask(name, "first"), DryRun: true}, &tried))
	var none typesv1.Object
	if code, _ := c.Call(ctx, "PolicyService/Get", &apiv1.GetRequest{Kind: "mask", Name: name}, &none); code != "not_found" {
		t.Fatalf("a dry run left something: %s", code)
	}
	var made typesv1.Object
	fine(c.Call(ctx, "PolicyService/Create", &apiv1.CreateRequest{Object: mask(name, "first")}, &made))
	if m := object.Meta(&made); m.GetEtag() == "" || m.GetCreatedBy() != "ada" || m.GetUid() == "" {
		t.Errorf("made: %v", &made)
	}
	event("put", "first")
	if code, text := c.Call(ctx, "PolicyService/Create", &apiv1.CreateRequest{Object: mask(name, "again")}, &none); code != "already_exists" {
		t.Errorf("a second of the same name: %s %s", code, text)
	}

	second := mask(name, "second")
	object.Meta(second).Etag = object.Meta(&made).GetEtag()
	var updated typesv1.Object
	fine(c.Call(ctx, "PolicyService/Update", &apiv1.UpdateRequest{Object: second, DryRun: true}, &tried))
	fine(c.Call(ctx, "PolicyService/Update", &apiv1.UpdateRequest{Object: second}, &updated))
	event("put", "second")
	third := mask(name, "third")
	object.Meta(third).Etag = object.Meta(&made).GetEtag()
	code, text := c.Call(ctx, "PolicyService/Update", &apiv1.UpdateRequest{Object: third}, &none)
	if code != "aborted" || !strings.Contains(text, "ada") || !strings.Contains(text, "spec.value") {
		t.Errorf("a stale etag: %s %s", code, text)
	}
	if code, text := c.Call(ctx, "PolicyService/Update", &apiv1.UpdateRequest{Object: mask("none-"+name, "x")}, &none); code != "not_found" && code != "invalid_argument" {
		t.Errorf("an update of nothing: %s %s", code, text)
	}
	wrong := mask("wrong-"+name, "x")
	wrong.GetMask().Spec.Method = "magic"
	if code, text := c.Call(ctx, "PolicyService/Create", &apiv1.CreateRequest{Object: wrong}, &none); code != "invalid_argument" || !strings.Contains(text, "spec.method") {
		t.Errorf("a bad spec: %s %s", code, text)
	}
	if code, text := c.Call(ctx, "PolicyService/Delete", &apiv1.DeleteRequest{Kind: "mask", Name: "email"}, &apiv1.DeleteResponse{}); code != "failed_precondition" || !strings.Contains(text, "sales-report") {
		t.Errorf("what others need was deleted: %s %s", code, text)
	}
	if code, _ := c.Call(ctx, "PolicyService/Delete", &apiv1.DeleteRequest{Kind: "mask", Name: name, Etag: object.Meta(&made).GetEtag()}, &apiv1.DeleteResponse{}); code != "aborted" {
		t.Errorf("a delete with a stale etag: %s", code)
	}
	fine(c.Call(ctx, "PolicyService/Delete", &apiv1.DeleteRequest{Kind: "mask", Name: name, Etag: object.Meta(&updated).GetEtag()}, &apiv1.DeleteResponse{}))
	event("delete", "")
}
