// Package secret holds values that must not be printed: whatever verb, encoder or
// logger meets one, it sees the word REDACTED. It also seals values to a node's key, and
// keeps keys in files that nobody but their owner may read.
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

const redacted = "REDACTED"

// Bytes is a secret value. The zero Bytes is empty. It is not safe to Wipe a value
// that another goroutine reads.
type Bytes struct{ b []byte }

// New takes b as a secret; it keeps b, and so the caller must not.
func New(b []byte) Bytes { return Bytes{b: b} }

// FromString copies s into a secret.
func FromString(s string) Bytes { return Bytes{b: []byte(s)} }

// Reveal returns the value itself, which lives until Wipe; callers must not keep it.
func (s Bytes) Reveal() []byte { return s.b }

// Len is the length of the value in bytes.
func (s Bytes) Len() int { return len(s.b) }

// Equal compares in constant time.
func (s Bytes) Equal(t Bytes) bool { return subtle.ConstantTimeCompare(s.b, t.b) == 1 }

// Wipe overwrites the value with zeros. Copies that the runtime made are beyond reach.
func (s Bytes) Wipe() { clear(s.b) }

func (Bytes) String() string               { return redacted }
func (Bytes) GoString() string             { return redacted }
func (Bytes) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }
func (Bytes) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Bytes) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Bytes) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
