package ssh

import (
	"encoding/binary"
	"io"
	"io/fs"
	"sync"
)

// requests is what a client asks in SFTP: one after the other, while a file is open to whose
// end is added. The library does several at once, and a host adds in the order in which they
// come to it. It reads no further than one request at a time, and answers each once. With
// which permissions folders are to be made the library does not tell; this does.
type requests struct {
	ch io.ReadWriter

	in, out frames // each of the one goroutine that reads, or writes

	mu       sync.Mutex
	answered sync.Cond     // over mu
	open     int           // requests without an answer
	added    int           // files that are added to
	folders  []fs.FileMode // of those that are to be made, in the order of the requests
}

func newRequests(ch io.ReadWriter) *requests {
	r := &requests{ch: ch}
	r.answered.L = &r.mu
	r.in.folder = func(request []byte) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.folders = append(r.folders, folderMode(request))
	}
	return r
}

// folder is which permissions are asked for the folder that is made next; 0 where none are. The
// library makes folders one after the other.
func (r *requests) folder() (mode fs.FileMode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.folders) > 0 {
		mode, r.folders = r.folders[0], r.folders[1:]
	}
	return mode
}

// folderMode reads SSH_FXP_MKDIR (draft-ietf-secsh-filexfer-02, 6.6 and 5): its kind and number,
// the name, and attributes, of which those before the permissions may be left out.
func folderMode(request []byte) fs.FileMode {
	const sizes, owners, permissions = 1, 2, 4
	at := 5
	number := func() (n uint32) {
		if at+4 <= len(request) {
			n = binary.BigEndian.Uint32(request[at:])
		}
		at += 4
		return n
	}
	at += int(number())
	flags := number()
	if flags&permissions == 0 {
		return 0
	}
	if flags&sizes != 0 {
		at += 8
	}
	if flags&owners != 0 {
		at += 8
	}
	return fs.FileMode(number()).Perm() // never setuid
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

	folder func(request []byte) // is told of each that makes a folder; nil for nobody
	kept   []byte               // of such a one
}

const (
	makesFolder = 14        // SSH_FXP_MKDIR
	maxFolder   = 256 << 10 // bytes of one, as the library has it of all
)

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
		f.keep(p[:n])
		f.left, p = f.left-n, p[n:]
		if f.left == 0 {
			f.have = 0
			ended++
		}
	}
	return ended
}

// keep takes the next part of a packet, and tells of one that makes a folder with its last.
func (f *frames) keep(part []byte) {
	begins := len(part) > 0 && f.left == int(binary.BigEndian.Uint32(f.head[:]))
	if f.folder == nil || f.left > maxFolder || len(f.kept) == 0 && !(begins && part[0] == makesFolder) {
		return
	}
	f.kept = append(f.kept, part...)
	if len(part) == f.left {
		f.folder(f.kept)
		f.kept = nil
	}
}
