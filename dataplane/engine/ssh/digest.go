package ssh

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"
)

// maxAhead is how much of a file may come before what is missing, in bytes, for it to
// have a digest.
const maxAhead = 8 << 20

// A digest is the hash of a file whose parts come out of order, as clients of SFTP have
// many requests under way. A file of which parts were left out, or that was written
// twice at one place, has none.
type digest struct {
	mu      sync.Mutex
	sum     hash.Hash
	at      int64
	ahead   map[int64][]byte
	waiting int
	lost    bool
	bytes   int64
}

func newDigest() *digest { return &digest{sum: sha256.New(), ahead: map[int64][]byte{}} }

func (d *digest) part(offset int64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bytes += int64(len(p))
	switch {
	case d.lost || len(p) == 0:
		return
	case offset < d.at || d.waiting+len(p) > maxAhead || d.ahead[offset] != nil:
		d.lost, d.ahead = true, nil
		return
	case offset > d.at:
		d.ahead[offset] = append([]byte(nil), p...)
		d.waiting += len(p)
		return
	}
	for p != nil {
		d.sum.Write(p)
		d.at += int64(len(p))
		p = d.ahead[d.at]
		delete(d.ahead, d.at)
		d.waiting -= len(p)
	}
}

// total is how many bytes there were, and "sha256:..." of them, or nothing.
func (d *digest) total() (int64, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost || len(d.ahead) > 0 {
		return d.bytes, ""
	}
	return d.bytes, "sha256:" + hex.EncodeToString(d.sum.Sum(nil))
}
