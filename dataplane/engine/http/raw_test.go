package http

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/content"
	"github.com/posterngate/postern/pkg/postern"
)

// keeps is a way back that keeps what masks hide, or does not.
type keeps struct {
	engine.FlowSink
	no  bool
	raw strings.Builder
}

func (k *keeps) KeepsRaw() bool { return !k.no }
func (k *keeps) RawOutput(_ engine.Stream, p []byte) error {
	k.raw.Write(p)
	return nil
}

// TestRaw: what masks hide is told as it came, but for what the resource is asked with.
func TestRaw(t *testing.T) {
	rule, err := content.Compile(&postern.ContentRule{Fields: []postern.FieldRule{{Path: "/email", Mask: &postern.MaskRule{Name: "email", Method: postern.MaskRedact, Value: "***"}}}})
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"email":"bela@sample.example","key":"s3cr3t-token","more":"s3cr3t-"}`
	for _, no := range []bool{false, true} {
		x, sink := &exchange{judged: judged{masks: rule}}, &keeps{no: no}
		x.flow.Start(sink, -1, -1)
		m, err := rule.Masker("application/json")
		if err != nil {
			t.Fatal(err)
		}
		r, err := content.NewReader(io.NopCloser(iotest.OneByteReader(strings.NewReader(body))), x.keepRaw(m, [][]byte{[]byte("s3cr3t-token")}), "")
		if err != nil {
			t.Fatal(err)
		}
		shown, err := io.ReadAll(r)
		if err != nil || !strings.Contains(string(shown), `"email":"***"`) {
			t.Errorf("shown: %s, %v", shown, err)
		}
		want := strings.Replace(body, "s3cr3t-token", "************", 1)
		if no {
			want = ""
		}
		if sink.raw.String() != want {
			t.Errorf("raw: %s", sink.raw.String())
		}
	}
}
