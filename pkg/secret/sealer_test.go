package secret

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// TestSealer: what it seals the library opens, and nothing is sealed twice under one info.
func TestSealer(t *testing.T) {
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSealer(key.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range 50 {
		info, plain := fmt.Appendf(nil, "info %d", i), bytes.Repeat([]byte{7}, i)
		sealed, err := s.Seal(info, plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := OpenWith(key, info, sealed); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened %x, %v", got, err)
		}
		if i > 16 && seen[string(sealed[32:48])] {
			t.Error("two infos share a key stream")
		}
		seen[string(sealed[32:])[:min(16, len(sealed)-32)]] = true
		if _, err := OpenWith(key, append(info, 'x'), sealed); err == nil {
			t.Error("opened with another info")
		}
		if _, err := OpenWith(other, info, sealed); err == nil {
			t.Error("opened with another key")
		}
		if _, err := s.Seal(info, plain); !errors.Is(err, ErrSealerUsed) {
			t.Errorf("sealed twice under one info: %v", err)
		}
	}
	for i := 50; i < maxSeals; i++ {
		if err := s.use(fmt.Appendf(nil, "info %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Seal([]byte("one more"), nil); !errors.Is(err, ErrSealerUsed) {
		t.Errorf("it goes on for ever: %v", err)
	}
	for _, bad := range [][]byte{nil, make([]byte, 31), make([]byte, 32)} {
		if _, err := NewSealer(bad); err == nil {
			t.Errorf("%x is taken for a public key", bad)
		}
	}
}
