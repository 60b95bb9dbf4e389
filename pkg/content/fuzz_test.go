package content

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func FuzzJSON(f *testing.F) {
	for seed := range uint64(4) {
		f.Add([]byte(jsonBody(rand.New(rand.NewPCG(seed, 1)))), seed)
	}
	f.Add([]byte(`{"a":[1,-2.5e3,true,null,{"orders":"\ud83d\ude00\n"}],"address":{"x":1}}`), uint64(1))
	kinds := rule(f, looks, at("/orders/*/address", stars), at("address", last4))
	none := rule(f, nil, at("/nothing/of/it", stars))
	f.Fuzz(func(t *testing.T, body []byte, seed uint64) {
		for _, r := range []*Rule{kinds, none} {
			want, err := whole(r, jsonType, string(body))
			rd, rerr := reader(r, io.NopCloser(&pieces{rand.New(rand.NewPCG(seed, 2)), body, 7}), jsonType, "")
			if rerr != nil {
				t.Fatal(rerr)
			}
			got, rerr := io.ReadAll(rd)
			if (err == nil) != (rerr == nil) || err == nil && string(got) != want {
				t.Fatalf("in pieces %q, %v\nas a whole %q, %v", got, rerr, want, err)
			}
			if err != nil {
				continue
			}
			if !json.Valid(body) || !json.Valid(got) {
				t.Fatalf("%q became %q", body, got)
			}
			if r == none && !equal(t, body, got) {
				t.Fatalf("%q became %q", body, got)
			}
		}
	})
}

func equal(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return bytes.Equal(a, b) // a number that is none of Go's
	}
	p, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	q, err := json.Marshal(y)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(p, q)
}

func FuzzFields(f *testing.F) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 1))
		f.Add([]byte(csvBody(r)), seed)
		f.Add([]byte(formBody(r)), seed)
	}
	r := rule(f, looks, at("address", last4))
	f.Fuzz(func(t *testing.T, body []byte, seed uint64) {
		for _, contentType := range []string{"text/csv", "application/x-www-form-urlencoded"} {
			want, err := whole(r, contentType, string(body))
			rd, rerr := reader(r, io.NopCloser(&pieces{rand.New(rand.NewPCG(seed, 2)), body, 7}), contentType, "")
			if rerr != nil {
				t.Fatal(rerr)
			}
			got, rerr := io.ReadAll(rd)
			if (err == nil) != (rerr == nil) || err == nil && string(got) != want {
				t.Fatalf("in pieces %q, %v\nas a whole %q, %v", got, rerr, want, err)
			}
		}
	})
}

// FuzzUnpack makes sure that no packed body panics or hides how large it is.
func FuzzUnpack(f *testing.F) {
	for encoding := range packers {
		f.Add(strings.TrimSuffix(encoding, "-raw"), pack(f, encoding, []byte("hello, hello, hello alice@example.com")))
	}
	r := rule(f, looks)
	f.Fuzz(func(t *testing.T, encoding string, body []byte) {
		rd, err := reader(r, io.NopCloser(bytes.NewReader(body)), "text/plain", encoding)
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, rd)
		if n > 2*MaxFree+int64(len(body))*MaxRatio {
			t.Fatalf("%d bytes became %d", len(body), n)
		}
		if err := rd.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
