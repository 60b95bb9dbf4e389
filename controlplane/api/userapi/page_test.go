package userapi

import (
	"slices"
	"strings"
	"testing"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

func FuzzPageToken(f *testing.F) {
	query := queryHash("policy", "task")
	f.Add(pageToken(query, "sales-report"))
	f.Add(pageToken(queryHash("policy", "mask"), "x"))
	f.Add("")
	f.Add("AQ==")
	f.Add(pageToken(query, "x") + "\n")
	f.Add(strings.Repeat("A", 2000))
	f.Fuzz(func(t *testing.T, token string) {
		at, err := pageStart(token, query)
		if err != nil || token == "" {
			return
		}
		if pageToken(query, at) != token {
			t.Errorf("token %q means %q, whose token is %q", token, at, pageToken(query, at))
		}
	})
}

func TestQueryHashKeepsPartsApart(t *testing.T) {
	if slices.Equal(queryHash("ab", "c"), queryHash("a", "bc")) || slices.Equal(queryHash("a", ""), queryHash("a")) {
		t.Error("different queries have one hash")
	}
}

func TestDiffer(t *testing.T) {
	parse := func(text string) *typesv1.Object {
		all, err := object.ParseYAML(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	const base = "kind: Task\nmetadata: {name: t, etag: x, labels: {a: b}}\nspec: {purpose: p, permit: [{table: a.b, mask: {c: email}}], limits: {rows: 1}}"
	for text, want := range map[string]string{
		base: "",
		"kind: Task\nmetadata: {name: t, etag: z, labels: {a: b}}\nspec: {purpose: p, permit: [{table: a.b, mask: {c: email}}], limits: {rows: 1}}": "",
		"kind: Task\nmetadata: {name: t, labels: {a: c, d: e}}\nspec: {purpose: q, permit: [{table: a.b, mask: {c: email}}], limits: {rows: 1}}":    "metadata.labels.a metadata.labels.d spec.purpose",
		"kind: Task\nmetadata: {name: t, labels: {a: b}}\nspec: {purpose: p, permit: [{table: a.b, mask: {d: email}}, {table: x.y}]}":               "spec.limits spec.permit[0].mask.c spec.permit[0].mask.d spec.permit[1]",
		"kind: Mask\nmetadata: {name: t}": "",
	} {
		got := strings.Join(differ(parse(base), parse(text)), " ")
		if strings.HasPrefix(text, "kind: Mask") {
			if got == want && len(differ(parse(base), parse(text))) == 0 {
				t.Error("objects of two kinds are the same")
			}
			continue
		}
		if got != want {
			t.Errorf("%s\ndiffers in %q, want %q", text, got, want)
		}
	}
	a := parse("kind: Binding\nmetadata: {name: b}\nspec: {expires: 2027-01-01T00:00:00Z}")
	b := parse("kind: Binding\nmetadata: {name: b}\nspec: {expires: 2028-01-01T00:00:00Z}")
	if got := differ(a, b); len(got) != 1 || got[0] != "spec.expires" {
		t.Errorf("a time differs in %v", got)
	}
	c := parse("kind: Resource\nmetadata: {name: r}\nspec: {pin: {search_path: [a, b]}}")
	d := parse("kind: Resource\nmetadata: {name: r}\nspec: {pin: {search_path: [a, c]}}")
	if got := differ(c, d); len(got) != 1 || got[0] != "spec.pin.search_path" {
		t.Errorf("a value differs in %v", got)
	}
}
