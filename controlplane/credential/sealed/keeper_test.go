package sealed

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openKeeper(t testing.TB, path string) Keeper {
	t.Helper()
	k, err := OpenKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeeper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "keeper.key")
	k := openKeeper(t, path)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("key file: %v, %v", st.Mode(), err)
	}
	sealed, err := k.Seal(t.Context(), []byte("hunter2"), []byte("secret/a"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("hunter2")) {
		t.Error("the sealed value shows the plaintext")
	}
	again := openKeeper(t, path) // as after a restart
	if got, err := again.Open(t.Context(), sealed, []byte("secret/a")); err != nil || string(got) != "hunter2" {
		t.Errorf("opened %q, %v", got, err)
	}
	if _, err := again.Open(t.Context(), sealed, []byte("secret/b")); err == nil {
		t.Error("opened under another name")
	}
	if _, err := openKeeper(t, filepath.Join(t.TempDir(), "k")).Open(t.Context(), sealed, []byte("secret/a")); err == nil {
		t.Error("opened with another key file")
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := k.Open(t.Context(), bad, []byte("secret/a")); err == nil {
			t.Errorf("opened with byte %d changed", i)
		}
		if _, err := k.Open(t.Context(), sealed[:i], []byte("secret/a")); err == nil {
			t.Errorf("opened when cut to %d bytes", i)
		}
	}
}

func TestKeyFileRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keeper.key")
	old, err := openKeeper(t, path).Seal(t.Context(), []byte("v"), nil)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	other := filepath.Join(t.TempDir(), "keeper.key")
	openKeeper(t, other)
	fresh, _ := os.ReadFile(other)
	if err := os.WriteFile(path, append(fresh, before...), 0o600); err != nil {
		t.Fatal(err)
	}
	k := openKeeper(t, path)
	if got, err := k.Open(t.Context(), old, nil); err != nil || string(got) != "v" {
		t.Errorf("the old key no longer opens: %q, %v", got, err)
	}
	sealed, _ := k.Seal(t.Context(), []byte("v"), nil)
	if _, err := openKeeper(t, other).Open(t.Context(), sealed, nil); err != nil {
		t.Errorf("the first key did not seal: %v", err)
	}
}

func TestKeyFileRefused(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good")
	openKeeper(t, good)
	text, _ := os.ReadFile(good)
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"readable by others", string(text), 0o644, "chmod 0600"},
		{"empty", "", 0o600, "no key"},
		{"garbage", "hello\n", 0o600, "not a key"},
		{"short key", "postern-key-1 AAAA\n", 0o600, "not 32 bytes"},
		{"huge", strings.Repeat("#\n", maxKeyFile), 0o600, "longer"},
	} {
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKeyFile(path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error = %v, want one with %q", c.name, err, c.want)
		}
	}
}

func FuzzKeeperOpen(f *testing.F) {
	k := openKeeper(f, filepath.Join(f.TempDir(), "k"))
	good, err := k.Seal(f.Context(), []byte("v"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(nil))
	f.Add([]byte(magic))
	f.Add(good)
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if _, err := k.Open(t.Context(), sealed, nil); err == nil && !bytes.Equal(sealed, good) {
			t.Error("something else opened")
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte("postern-key-1 AAAA\n"))
	f.Add([]byte("# nothing\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if k, err := parseKeys(text); err == nil && len(k.keys) == 0 {
			t.Error("a keeper without a key")
		}
	})
}
