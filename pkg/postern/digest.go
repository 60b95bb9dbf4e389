package postern

import (
	"crypto/sha256"
	"encoding/binary"
)

// Param is one bound value of a statement, as people are shown it.
type Param struct {
	Value string // text, or hex with a leading \x for binary
	Null  bool
}

// HoldDigest binds an approval to just what was asked: who, under which grant and task,
// on which resource, and the exact statement with its parameters. Each part is preceded
// by its length, so that no two questions have one digest.
func HoldDigest(subject string, grant GrantID, task TaskName, resource ResourceName, scope Scope, statement string, params []Param) [32]byte {
	h := sha256.New()
	put := func(s string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	put("postern/hold/v1")
	for _, s := range []string{subject, string(grant), string(task), string(resource), string(scope), statement} {
		put(s)
	}
	for _, p := range params {
		if p.Null {
			put("null")
			continue
		}
		put("text")
		put(p.Value)
	}
	return [32]byte(h.Sum(nil))
}
