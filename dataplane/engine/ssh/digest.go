package ssh

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"
	"sync/atomic"
)

// maxAhead is how much of a file may come before what is missing, in bytes, for it to
// have a digest.
const maxAhead = 8 << 20

// partCost is what a part that came early takes beside its bytes.
const partCost = 128

// maxAside is how much the files of one connection keep before they keep no more, in bytes.
const maxAside = 64 << 20

// aside counts what files keep in memory for one connection: parts that came early, and
// what is in folders.
type aside struct{ bytes atomic.Int64 }

func (a *aside) full() bool { return a.bytes.Load() >= maxAside }

func (a *aside) add(n int) { a.bytes.Add(int64(n)) }

// A digest is the hash of a file whose parts come out of order, as clients of SFTP have
// many requests under way. A file of which parts were left out, or that was written
// twice at one place, has none.
type digest struct {
	mu      sync.Mutex
	sum     hash.Hash
	at      int64
	ahead   map[int64][]byte
	waiting int    // what ahead takes
	aside   *aside // has it too
	lost    bool
	bytes   int64
}

func newDigest(a *aside) *digest {
	return &digest{sum: sha256.New(), ahead: map[int64][]byte{}, aside: a}
}

func (d *digest) part(offset int64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bytes += int64(len(p))
	switch {
	case d.lost || len(p) == 0:
		return
	case offset < d.at || d.ahead[offset] != nil:
		d.drop()
		return
	case offset > d.at:
		if d.waiting+len(p)+partCost > maxAhead || d.aside.full() {
			d.drop()
			return
		}
		d.ahead[offset] = append([]byte(nil), p...)
		d.wait(len(p) + partCost)
		return
	}
	for p != nil {
		d.sum.Write(p)
		d.at += int64(len(p))
		if p = d.ahead[d.at]; p != nil {
			delete(d.ahead, d.at)
			d.wait(-len(p) - partCost)
		}
	}
}

func (d *digest) wait(n int) {
	d.waiting += n
	d.aside.add(n)
}

// drop gives back what came early, and the digest with it.
func (d *digest) drop() {
	d.wait(-d.waiting)
	d.lost, d.ahead = true, nil
}

// lose is drop for whoever needs the digest no more.
func (d *digest) lose() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop()
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
