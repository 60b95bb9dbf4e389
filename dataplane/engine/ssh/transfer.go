package ssh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"github.com/pkg/sftp"

	"github.com/posterngate/postern/dataplane/engine"
	facts "github.com/posterngate/postern/pkg/ssh"
)

var (
	_ sftp.OpenFileWriter = (*files)(nil)
	_ sftp.TransferError  = (*transfer)(nil)
	_ sftp.TransferError  = (*both)(nil)
)

// Fileread opens a file for reading.
func (f *files) Fileread(r *sftp.Request) (io.ReaderAt, error) {
	return f.openFile(facts.Facts{Verb: facts.Read}, "read", r.Filepath, syscall.O_RDONLY, 0)
}

// Filewrite opens a file for writing.
func (f *files) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	return f.openFile(facts.Facts{Verb: facts.Write}, "write", r.Filepath, writing(r), asked(r.Attrs))
}

// OpenFile opens a file for both, which are two operations: neither is judged by the other.
// Nothing is done at the host before both are admitted.
func (f *files) OpenFile(r *sftp.Request) (sftp.WriterAtReaderAt, error) {
	reading, err := f.begin(facts.Facts{Verb: facts.Read}, "read", r.Filepath)
	if err != nil {
		return nil, err
	}
	write, err := f.openFile(facts.Facts{Verb: facts.Write}, "write", r.Filepath, writing(r), asked(r.Attrs))
	if err != nil {
		return nil, errors.Join(err, reading.end("", err))
	}
	if err := reading.open(r.Filepath, syscall.O_RDONLY, 0); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	return &both{write, reading}, nil
}

// writing is how a client wants a file to be opened for writing.
func writing(r *sftp.Request) int {
	p, flags := r.Pflags(), syscall.O_WRONLY
	for _, v := range []struct {
		set  bool
		flag int
	}{{p.Creat, syscall.O_CREAT}, {p.Trunc, syscall.O_TRUNC}, {p.Excl, syscall.O_EXCL}, {p.Append, syscall.O_APPEND}} {
		if v.set {
			flags |= v.flag
		}
	}
	return flags
}

// asked are the permissions that a client asks for a file that is made; 0 where it asks none.
// The library keeps back which attributes these are: permissions alone have four bytes, and
// clients send none with them but the times, which follow.
func asked(attrs []byte) fs.FileMode {
	if len(attrs) != 4 && len(attrs) != 12 {
		return 0
	}
	return fs.FileMode(binary.BigEndian.Uint32(attrs)).Perm() // never setuid
}

// openFile opens a file; one that is made gets the permissions of mode, where that has any.
func (f *files) openFile(fa facts.Facts, what, name string, flags int, mode fs.FileMode) (*transfer, error) {
	t, err := f.begin(fa, what, name)
	if err == nil {
		err = t.open(name, flags, mode)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// begin has one admitted; open follows, or end.
func (f *files) begin(fa facts.Facts, what, name string) (*transfer, error) {
	if err := f.take(); err != nil {
		return nil, err
	}
	o, err := f.admit(fa, what, name)
	if err != nil {
		f.give()
		return nil, err
	}
	return &transfer{f: f, op: o, what: what, sum: newDigest(&f.c.aside)}, nil
}

// open opens it at the host. Where that fails it has ended.
func (t *transfer) open(name string, flags int, mode fs.FileMode) (err error) {
	err = t.f.use(t.op, func() (err error) {
		t.far, err = t.f.openAt(name, flags, mode)
		return err
	})
	if err != nil {
		return t.end("", err)
	}
	if t.adds = flags&syscall.O_APPEND != 0; t.adds {
		t.f.asked.adds(1)
	}
	return nil
}

// end records how it ended, and returns what the client is told.
func (t *transfer) end(tag string, err error) error {
	defer t.f.give()
	if t.adds {
		t.f.asked.adds(-1)
	}
	t.sum.lose()
	return t.f.finish(t.op.execution, tag, err)
}

// openAt opens a file at the host. The library cannot say with which permissions it is to be
// made, and so they are set before there is anything in it; those of what is there stay.
func (f *files) openAt(name string, flags int, mode fs.FileMode) (*sftp.File, error) {
	if flags&syscall.O_CREAT == 0 || mode == 0 {
		return f.host.OpenFile(name, flags)
	}
	far, err := f.host.OpenFile(name, flags|syscall.O_EXCL)
	switch {
	case err != nil && flags&syscall.O_EXCL == 0: // it is there, or cannot be made
		return f.host.OpenFile(name, flags)
	case err != nil:
		return nil, err
	}
	if made, err := far.Stat(); err == nil && let(mode, made.Mode()) != made.Mode().Perm() {
		_ = far.Chmod(let(mode, made.Mode())) // where that cannot be, the host has its own ways
	}
	return far, nil
}

// let is mode as far as the host's umask lets, which what was made without one shows: who may
// read may run.
func let(mode, made fs.FileMode) fs.FileMode { return mode & (made | made&0o444>>2).Perm() }

// take counts a file or folder where one more may be open; give ends it.
func (f *files) take() error {
	if f.open.Add(1) > int64(f.c.e.limits.Files) {
		f.give()
		return errors.New("postern: too many files are open")
	}
	return nil
}

func (f *files) give() { f.open.Add(-1) }

// A transfer is one open file.
type transfer struct {
	f    *files
	op   *operation
	far  *sftp.File
	what string
	sum  *digest
	cut  bool // the client went before it closed it
	adds bool // to what is there
}

// ReadAt reads, within what the task allows.
func (t *transfer) ReadAt(p []byte, offset int64) (int, error) {
	room := t.op.room(len(p))
	if room == 0 && len(p) > 0 {
		r := t.f.c.terms.NoMoreBytes()
		t.f.tell(r)
		return 0, &denied{r}
	}
	n, err := t.far.ReadAt(p[:room], offset)
	t.op.give(room - n)
	t.sum.part(offset, p[:n])
	if cerr := t.op.count(engine.ToClient, p[:n]); cerr != nil {
		return 0, cerr
	}
	return n, err
}

// WriteAt writes.
func (t *transfer) WriteAt(p []byte, offset int64) (int, error) {
	if err := t.op.input(p); err != nil {
		return 0, err
	}
	n, err := t.far.WriteAt(p, offset)
	t.sum.part(offset, p[:n])
	return n, err
}

// TransferError is told of a file that the client did not close: it may be a part of one.
func (t *transfer) TransferError(error) { t.cut = true }

// Close ends the transfer; the record gets its size and hash.
func (t *transfer) Close() error {
	n, sum := t.sum.total()
	tag := strings.TrimSpace(fmt.Sprintf("%s %d bytes %s", t.what, n, sum))
	if t.cut {
		tag += ", cut off"
	}
	return t.end(tag, t.far.Close())
}

// both is a file that is open for writing and for reading.
type both struct{ write, read *transfer }

func (b *both) WriteAt(p []byte, offset int64) (int, error) { return b.write.WriteAt(p, offset) }
func (b *both) ReadAt(p []byte, offset int64) (int, error)  { return b.read.ReadAt(p, offset) }

// TransferError is that of both.
func (b *both) TransferError(err error) {
	b.write.TransferError(err)
	b.read.TransferError(err)
}

// Close closes both.
func (b *both) Close() error { return errors.Join(b.write.Close(), b.read.Close()) }
