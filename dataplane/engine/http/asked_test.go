package http

import (
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/content"
	"github.com/posterngate/postern/pkg/postern"
)

// TestShade: what is recorded of a request is masked like its answer, wherever it is cut;
// what cannot be is not recorded.
func TestShade(t *testing.T) {
	rule, err := content.Compile(&postern.ContentRule{Fields: []postern.FieldRule{{Path: "/customer/email", Mask: &postern.MaskRule{Name: "email", Method: postern.MaskRedact, Value: "***"}}}})
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"status":"paid","customer":{"email":"bela@sample.example","name":"Bela"}}`
	for name, c := range map[string]struct {
		kind, body, want string
		masks            *content.Rule
	}{
		"masked":       {"application/json", body, strings.Replace(body, "bela@sample.example", "***", 1), rule},
		"no masks":     {"image/png", body, body, nil},
		"another form": {"image/png", body, "", rule},
		"broken":       {"application/json", `{"status":"paid"} and more bela@sample.example`, `{"status":"paid"}`, rule},
	} {
		for _, size := range []int{1, 7, 1000} {
			s := shade{}
			if c.masks != nil {
				m, err := c.masks.Masker(c.kind)
				s = shade{masker: m, blind: err != nil}
			}
			var got []byte
			for at := 0; at < len(c.body); at += size {
				got = append(got, s.part([]byte(c.body[at:min(at+size, len(c.body))]))...)
			}
			got = append(got, s.rest()...)
			if name == "broken" && strings.Contains(string(got), "bela") || name != "broken" && string(got) != c.want {
				t.Errorf("%s by %d: %s", name, size, got)
			}
		}
	}
}
