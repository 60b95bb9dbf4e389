package detect

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// planted are values that must never show.
var planted = []string{
	"alice.longname@mail.example.com", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "+49 30 1234567", "(212) 555-0100", "123-45-6789", "AB 12 34 56 C",
	aJWT, "AKIAIOSFODNN7EXAMPLE", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "xoxb-123456789012-abcdefghij", "pst_abcdefghijklmnop0123456789",
	"password: hunter2-and-more", `"api_key": "quoted value here"`, "Authorization: Bearer q1w2e3r4t5", aKey, "529.982.247-25", "12345678Z", "RSSMRA85T10A562S",
}

// shows is what of a planted value must not show, where more of it may.
func shows(value string) string {
	for _, name := range []string{"password: ", `"api_key": "`, "Authorization: Bearer "} {
		value = strings.TrimPrefix(value, name)
	}
	return strings.TrimSuffix(strings.TrimPrefix(value, "("), `"`)
}

var fillers = []string{
	" ", "\n", ", ", "the quick brown fox ", "x=", "<b>", "\t", "12 ", "2026-11-25 20:45:01 ", "€ ", "-- ", ": ", "\"", "a.b.c ", "10.0.0.1 ", "id-", "/", "100% ", "]", "\\n",
	"-----BEGIN CERTIFICATE-----\n", "user@host:~$ ", "eyJ ", "secret ", "0049 ", "deadbeef0123 ",
}

func document(r *rand.Rand) (text []byte, in []string) {
	for range 1 + r.IntN(12) {
		for range 1 + r.IntN(4) {
			text = append(text, fillers[r.IntN(len(fillers))]...)
		}
		if r.IntN(3) > 0 {
			v := planted[r.IntN(len(planted))]
			text = append(append(append(text, ' '), v...), ' ')
			in = append(in, v)
		}
	}
	return text, in
}

// chunks feeds text in random pieces.
func chunks(r *rand.Rand, s *Stream, text []byte, each func([]byte)) []byte {
	var out []byte
	most := []int{1, 2, 5, 17, 200}[r.IntN(5)]
	for len(text) > 0 {
		n := min(len(text), 1+r.IntN(most))
		chunk := bytes.Clone(text[:n])
		out = s.Append(out, chunk)
		for i := range chunk {
			chunk[i] = 'X' // it is not kept
		}
		text = text[n:]
		each(out)
	}
	return s.Close(out)
}

func TestChunkings(t *testing.T) {
	s := set(t)
	for seed := range uint64(10_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		text, in := document(r)
		want := masked(s, string(text))
		st := s.NewStream()
		got := string(chunks(r, st, text, func([]byte) {}))
		if got != want {
			t.Fatalf("seed %d: %q\n in chunks %q\nas a whole %q", seed, text, got, want)
		}
		for _, v := range in {
			if strings.Contains(got, shows(v)) {
				t.Fatalf("seed %d: %q shows in %q", seed, v, got)
			}
		}
		if st.Held() != 0 {
			t.Fatalf("seed %d: %d bytes are held at the end", seed, st.Held())
		}
	}
}

// TestHarmless: what nobody has decided yet is shown only where it can hardly become anything.
func TestHarmless(t *testing.T) {
	s := set(t)
	for text, want := range map[string]bool{
		"go on? y/n": true, "ghp_a": false, "12345": false, "eyJ": false, "a@": false, strings.Repeat("x", maxFlush+1): false, "password: a": false,
	} {
		sc := s.NewScanner()
		done, _ := sc.Scan([]byte(text), false, nil)
		if got := sc.Harmless([]byte(text)[done:]); got != want {
			t.Errorf("%q, of which %q is not decided: %v", text, text[done:], got)
		}
	}
}

func TestHeldIsBounded(t *testing.T) {
	s := set(t)
	for _, text := range []string{
		strings.Repeat("a", 1<<17), strings.Repeat("1 ", 1<<16), strings.Repeat("a@", 1<<16), strings.Repeat("-----BEGIN A", 1<<13), "password=" + strings.Repeat("/", 1<<17),
		strings.Repeat("eyJa.", 1<<15), aKey[:60] + strings.Repeat("A\n", 1<<16), strings.Repeat("+1", 1<<16), "-----BEGIN" + strings.Repeat("A ", 1<<16),
	} {
		st, most := s.NewStream(), 0
		for chunk := []byte(text); len(chunk) > 0; chunk = chunk[min(len(chunk), 100):] {
			st.Append(nil, chunk[:min(len(chunk), 100)])
			most = max(most, st.Held())
		}
		if most > MaxWord+maxLook+100 {
			t.Errorf("%.20q: %d bytes were held", text, most)
		}
	}
}

func TestStreamAllocatesNothing(t *testing.T) {
	s := set(t)
	chunk := []byte(strings.Repeat("GET /index.html 200 12ms user 17 of 2026-11-25 said hello\n", 50) + "begin")
	dst := make([]byte, 0, 1<<16)
	st := s.NewStream()
	dst = st.Append(dst, chunk)
	if n := testing.AllocsPerRun(100, func() { dst = st.Append(dst[:0], chunk) }); n != 0 {
		t.Errorf("%v allocations a chunk", n)
	}
	line := []byte("mail to alice@example.com and 4111 1111 1111 1111")
	found := false
	if n := testing.AllocsPerRun(100, func() { dst, found = s.AppendMasked(dst[:0], line) }); n != 0 || !found {
		t.Errorf("%v allocations a text, something in it: %v", n, found)
	}
	if dst, found = s.AppendMasked(dst[:0], []byte("mail to alice")); found || string(dst) != "mail to alice" {
		t.Errorf("%q, something in it: %v", dst, found)
	}
}

// FuzzStream makes sure that cuts change nothing and that no planted value shows.
func FuzzStream(f *testing.F) {
	for i, v := range planted {
		f.Add([]byte("a "+v+" b"), uint64(i))
	}
	f.Add([]byte("password=\"-----BEGIN"), uint64(1))
	f.Add([]byte(strings.Repeat("Aa0", 2000)), uint64(2))
	f.Add([]byte("000 20.220A0"), uint64(4)) // no number of Spain, where its groups are cut before the 0
	f.Add([]byte("%A A000000A"), uint64(23)) // words whose beginning says how the rest is looked at
	f.Add([]byte("0Api%keY :0"), uint64(13))
	f.Add([]byte("%40 a%2@%40b.cc p-wd=x \\n4111"), uint64(3))
	s := set(f)
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		want := masked(s, string(text))
		r := rand.New(rand.NewPCG(seed, 3))
		got := string(chunks(r, s.NewStream(), text, func([]byte) {}))
		if got != want {
			t.Fatalf("%q\n in chunks %q\nas a whole %q", text, got, want)
		}
	})
}

func benchmark(b *testing.B, text string) {
	s := set(b, "email", "card", "iban", "us-ssn", "phone", "secrets")
	st, dst := s.NewStream(), make([]byte, 0, 2<<20)
	chunk := []byte(strings.Repeat(text, 1<<20/len(text)))
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		dst = dst[:0]
		for rest := chunk; len(rest) > 0; rest = rest[min(len(rest), 32<<10):] {
			dst = st.Append(dst, rest[:min(len(rest), 32<<10)])
		}
	}
}

func BenchmarkClean(b *testing.B) {
	benchmark(b, "Nov 25 20:45:01 web-1 nginx[1234]: upstream timed out while reading response header from upstream, client: 10.0.0.7, server: shop\n")
}

func BenchmarkDense(b *testing.B) {
	benchmark(b, `{"id": 17, "name": "Alice Example", "email": "alice@example.com", "card": "4111 1111 1111 1111", "phone": "+49 30 1234567", "iban": "DE89370400440532013000"}`+"\n")
}

func BenchmarkProse(b *testing.B) {
	benchmark(b, "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness. ")
}
