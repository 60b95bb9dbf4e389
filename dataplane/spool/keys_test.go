package spool

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
)

// TestKeys: one ephemeral key wraps the data keys of a while, for each of two recording
// keys, and is forgotten whether somebody comes or not.
func TestKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, err := secret.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		two, err := secret.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		var k keys
		n := 0
		next := func(to *secret.PrivateKey) []byte {
			n++
			id := postern.SessionID(fmt.Sprintf("s-%d", n))
			key, wrapped, err := k.next(to.PublicKey(), id)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := wrapped.Unwrap(to, id)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := record.OpenDataKey(raw.Reveal()); err != nil || key == nil {
				t.Fatal(err)
			}
			return wrapped.Sealed[:32]
		}
		first, other := next(one), next(two)
		if bytes.Equal(first, other) {
			t.Error("two recording keys have one ephemeral key")
		}
		time.Sleep(wrapFor - time.Second)
		if !bytes.Equal(next(one), first) || !bytes.Equal(next(two), other) {
			t.Error("an ephemeral key is used once")
		}
		time.Sleep(time.Second)
		if bytes.Equal(next(one), first) {
			t.Error("an ephemeral key is used for too long")
		}
		if _, _, err := k.next(one.PublicKey(), "s-1"); err != nil {
			t.Errorf("the same name under another ephemeral key: %v", err)
		}
		time.Sleep(wrapFor)
		k.expire(time.Now())
		if len(k.wraps) > 0 {
			t.Error("an ephemeral key is kept where nobody comes")
		}
	})
}
