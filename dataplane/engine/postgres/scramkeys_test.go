package postgres

import (
	"bytes"
	"fmt"
	"testing"
)

func TestScramKeysAreRememberedUnderThePassword(t *testing.T) {
	cache := newKeyCache()
	seen := map[string]string{}
	for range 2 { // the second time they come from the cache
		for _, password := range []string{"pencil", "pencil2", "pässword"} {
			for _, salt := range []string{"salt", "salt2"} {
				for _, iterations := range []int{1, 2} {
					want := derive([]byte(password), []byte(salt), iterations)
					got := cache.keys([]byte(password), []byte(salt), iterations)
					if !got.Equal(want.Bytes) {
						t.Errorf("%q %q %d: not what is derived", password, salt, iterations)
					}
					seen[string(got.Reveal())] = password
					if fmt.Sprintf("%v %+v", got, got) != "REDACTED REDACTED" {
						t.Errorf("keys show: %v", got)
					}
					got.Wipe()
				}
			}
		}
	}
	if len(seen) != 12 || len(cache.hidden) != 12 {
		t.Errorf("%d keys, %d remembered", len(seen), len(cache.hidden))
	}
	for _, hidden := range cache.hidden {
		for keys := range seen {
			for _, part := range []string{keys[:16], keys[16:32], keys[32:48], keys[48:]} {
				if bytes.Contains(hidden[:], []byte(part)) {
					t.Fatal("a key lies open in the cache")
				}
			}
		}
	}
}

func TestScramKeysAreBounded(t *testing.T) {
	cache := newKeyCache()
	for i := range maxDerived + 10 {
		cache.keys(fmt.Appendf(nil, "password %d", i), []byte("salt"), 1)
	}
	if len(cache.hidden) != maxDerived {
		t.Errorf("%d are remembered", len(cache.hidden))
	}
}
