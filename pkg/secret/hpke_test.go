package secret

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"
)

func TestSealOpens(t *testing.T) {
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	info := CredentialInfo("node-1", "l-1", "s-1")
	plain := []byte("hunter2")
	sealed, err := SealTo(key.PublicKey(), info, plain)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, plain) {
		t.Error("the ciphertext shows the plaintext")
	}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	for _, c := range []struct {
		name   string
		key    *PrivateKey
		info   []byte
		sealed []byte
		ok     bool
	}{
		{"the same", key, info, sealed, true},
		{"another node", key, CredentialInfo("node-2", "l-1", "s-1"), sealed, false},
		{"another lease", key, CredentialInfo("node-1", "l-2", "s-1"), sealed, false},
		{"another session", key, CredentialInfo("node-1", "l-1", "s-2"), sealed, false},
		{"another key", other, info, sealed, false},
		{"a flipped bit", key, info, flipped, false},
		{"cut short", key, info, sealed[:31], false},
		{"nothing", key, info, nil, false},
	} {
		got, err := OpenWith(c.key, c.info, c.sealed)
		if (err == nil) != c.ok || c.ok && !bytes.Equal(got, plain) {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

func TestPrivateKeyGoesRoundAndDoesNotPrint(t *testing.T) {
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	b, err := key.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParsePrivateKey(b.Reveal())
	if err != nil || !bytes.Equal(again.PublicKey(), key.PublicKey()) {
		t.Errorf("the key does not survive Marshal: %v", err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got := fmt.Sprintf(verb, key); got != redacted {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func TestKeyForm(t *testing.T) {
	for _, bad := range []string{"", "00", "0000000000000000000000000000000000000000000000000000000000000000ff"} {
		b, _ := hex.DecodeString(bad)
		if CheckPublicKey(b) == nil {
			t.Errorf("%d bytes were taken as a public key", len(b))
		}
		if _, err := SealTo(b, nil, nil); err == nil {
			t.Errorf("sealed to a key of %d bytes", len(b))
		}
	}
}

func FuzzOpenWith(f *testing.F) {
	key, err := GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	good, err := SealTo(key.PublicKey(), []byte("i"), []byte("p"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(nil))
	f.Add(good)
	f.Add(good[:32])
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if _, err := OpenWith(key, []byte("i"), sealed); err == nil && !bytes.Equal(sealed, good) {
			t.Error("something else opened")
		}
	})
}
