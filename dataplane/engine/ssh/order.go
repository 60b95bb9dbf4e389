package ssh

import (
	"encoding/binary"
	"io"
	"sync"
)

// requests is what a client asks in SFTP: one after the other, while a file is open to whose
// end is added. The library does several at once, and a host adds in the order in which they
// come to it. It reads no further than one request at a time, and answers each once.
type requests struct {
	ch io.ReadWriter

	in, out frames // each of the one goroutine that reads, or writes

	mu       sync.Mutex
	answered sync.Cond // over mu
	open     int       // requests without an answer
	added    int       // files that are added to
}

func newRequests(ch io.ReadWriter) *requests {
	r := &requests{ch: ch}
	r.answered.L = &r.mu
	return r
}

func (r *requests) Read(p []byte) (int, error) {
	if r.in.between() {
		r.mu.Lock()
		for r.added > 0 && r.open > 0 {
			r.answered.Wait()
		}
		r.mu.Unlock()
	}
	n, err := r.ch.Read(p)
	r.count(r.in.pass(p[:n]))
	return n, err
}

func (r *requests) Write(p []byte) (int, error) {
	n, err := r.ch.Write(p)
	r.count(-r.out.pass(p)) // also where nobody hears it
	return n, err
}

func (r *requests) count(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open += n
	r.answered.Broadcast()
}

// adds says that one file more is added to, or with -1 one less.
func (r *requests) adds(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.added += n
}

// frames finds where packets end, of which each begins with its length.
type frames struct {
	head [4]byte
	have int // of head
	left int // of what is behind it
}

// between reports whether the next byte begins a packet.
func (f *frames) between() bool { return f.have == 0 }

// pass counts the packets that end in p.
func (f *frames) pass(p []byte) (ended int) {
	for len(p) > 0 {
		if f.have < len(f.head) {
			n := copy(f.head[f.have:], p)
			f.have, p = f.have+n, p[n:]
			if f.have < len(f.head) {
				break
			}
			f.left = int(binary.BigEndian.Uint32(f.head[:]))
		}
		n := min(f.left, len(p))
		f.left, p = f.left-n, p[n:]
		if f.left == 0 {
			f.have = 0
			ended++
		}
	}
	return ended
}
