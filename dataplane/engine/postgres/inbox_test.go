package postgres

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// FuzzInbox: what an inbox reads at once is what readMessage reads bit by bit, however the
// bytes come.
func FuzzInbox(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("Z\x00\x00\x00\x05I"))
	f.Add(appendReady(appendStatus(appendStatus(nil, "TimeZone", "UTC"), "DateStyle", "ISO, MDY"), 'I'))
	f.Add(append(appendReady(nil, 'I'), "K\x00\x00\x00\xff12345678"...))
	f.Add([]byte{'S', 0xff, 0xff, 0xff, 0xff, 0})
	f.Add([]byte{'N', 0, 1, 0, 5, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		plain := bytes.NewReader(p)
		at := []*inbox{{r: bytes.NewReader(p)}, {r: iotest.OneByteReader(bytes.NewReader(p))}, {r: iotest.DataErrReader(bytes.NewReader(p))}}
		for {
			typ, body, err := readMessage(plain, maxHandshakeMessage-headerLen)
			for i, in := range at {
				gotTyp, got, gotErr := in.next()
				if (gotErr == nil) != (err == nil) {
					t.Fatalf("reader %d: %v, want %v", i, gotErr, err)
				}
				if err == nil && (gotTyp != typ || !bytes.Equal(got, body)) {
					t.Fatalf("reader %d: %q %q, want %q %q", i, gotTyp, got, typ, body)
				}
			}
			if err != nil {
				return
			}
		}
	})
}

// A message that is cut short is no message.
func TestInboxAtTheEnd(t *testing.T) {
	in := inbox{r: bytes.NewReader([]byte("Z\x00\x00\x00\x05"))}
	if _, _, err := in.next(); !errors.Is(err, io.EOF) || in.empty() {
		t.Errorf("next = %v, empty %t", err, in.empty())
	}
}
