package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

type note = atomic.Bool

const chainDomain = "postern/audit/v1"

// chain is the hash of an entry and of all before it. Every field is preceded by its
// length, so that no two entries have the same form.
func chain(before []byte, e *apiv1.AuditEntry) []byte {
	h := sha256.New()
	field := func(p []byte) {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p)))) // a hash takes everything
		_, _ = h.Write(p)
	}
	number := func(n int64) { field(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	field([]byte(chainDomain))
	field(before)
	number(e.GetSequence())
	number(e.GetTime().GetSeconds())
	number(int64(e.GetTime().GetNanos()))
	for _, s := range []string{e.GetActor(), e.GetAddress(), e.GetAction(), e.GetObject(), e.GetOutcome(), e.GetDetail()} {
		field([]byte(s))
	}
	return h.Sum(nil)
}
