package ssh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/pkg/ssh/shell"
)

// copying recognises what scp runs at the far end in its old protocol. Files that are
// copied so are judged as those of SFTP are, and the host runs nothing.
func (s *channel) copying(line string) func(context.Context) {
	l, err := shell.Parse(line)
	if err != nil || !l.Simple() || l.Commands()[0].Program() != "scp" {
		return nil
	}
	o, ok := copyOptions(l.Commands()[0].Argv[1:])
	if !ok {
		return nil
	}
	return func(ctx context.Context) {
		var told bool
		f, err := s.openFiles(ctx, printable(line), func(r *postern.Refusal) {
			told = true
			_, _ = s.ch.Stderr().Write([]byte(say(r)))
		})
		if err != nil {
			s.refuse(err)
			return
		}
		defer f.close()
		stop := context.AfterFunc(ctx, func() { _ = s.ch.Close() })
		defer stop()
		c := &copier{files: f, options: o, in: bufio.NewReaderSize(s.ch, 32<<10), out: s.ch}
		if o.sink {
			err = c.sink(c.abs(o.paths[0]), false)
		} else {
			err = c.source()
		}
		switch {
		case told:
			s.exit(exitRefused)
		case err != nil || c.failed:
			s.exit(1)
		default:
			s.exit(0)
		}
	}
}

// options are those of scp's far end.
type options struct {
	sink, folder, recursive, times bool
	paths                          []string
}

func copyOptions(args []string) (o options, ok bool) {
	source := false
	for i, a := range args {
		if a == "--" {
			args = args[i+1:]
			break
		}
		if !strings.HasPrefix(a, "-") || a == "-" {
			args = args[i:]
			break
		}
		for _, flag := range a[1:] {
			switch flag {
			case 't':
				o.sink = true
			case 'f':
				source = true
			case 'd':
				o.folder = true
			case 'r':
				o.recursive = true
			case 'p':
				o.times = true
			case 'v', 'q':
			default:
				return options{}, false
			}
		}
		if i == len(args)-1 {
			args = nil
			break
		}
	}
	o.paths = args
	return o, o.sink != source && len(args) > 0 && (!o.sink || len(args) == 1)
}

// A copier speaks scp's old protocol with the client: lines, answered by one byte, and
// the bytes of files between them.
type copier struct {
	files *files
	options
	in     *bufio.Reader
	out    io.Writer
	failed bool
}

// maxCopyLine bounds a line of the protocol, in bytes.
const maxCopyLine = 4096

func (c *copier) abs(name string) string {
	if !path.IsAbs(name) {
		name = path.Join(c.files.home, name)
	}
	return path.Clean(name)
}

// complain tells the client of an error that ends one file; fatal ones end all.
func (c *copier) complain(err error) error {
	c.failed = true
	_, werr := fmt.Fprintf(c.out, "\x01scp: %s\n", printable(err.Error()))
	return werr
}

func (c *copier) ok() error {
	_, err := c.out.Write([]byte{0})
	return err
}

// errSkip is a client's word that one file is not to be: it goes on with the next.
var errSkip = errors.New("the client does not take it")

// answered reads the client's answer, which may be errSkip.
func (c *copier) answered() error {
	b, err := c.in.ReadByte()
	if err != nil {
		return err
	}
	if b == 0 {
		return nil
	}
	line, err := c.line()
	switch {
	case err != nil:
		return err
	case b == 1:
		c.failed = true
		return errSkip
	}
	return errors.New("the client says: " + printable(line))
}

// skipped is an error, where it ends more than one file.
func skipped(err error) error {
	if errors.Is(err, errSkip) {
		return nil
	}
	return err
}

func (c *copier) line() (string, error) {
	var b strings.Builder
	for b.Len() < maxCopyLine {
		ch, err := c.in.ReadByte()
		if err != nil {
			return "", err
		}
		if ch == '\n' {
			return b.String(), nil
		}
		b.WriteByte(ch)
	}
	return "", errors.New("a line is too long")
}

// source sends files to the client.
func (c *copier) source() error {
	if err := skipped(c.answered()); err != nil {
		return err
	}
	for _, p := range c.paths {
		if err := c.send(c.abs(p), 0); err != nil {
			return err
		}
	}
	return nil
}

// maxDepth bounds folders within folders.
const maxDepth = 64

func (c *copier) send(name string, depth int) error {
	infos, err := c.files.look("stat", name, c.files.stat)
	if err != nil {
		return c.complain(err)
	}
	info := infos[0]
	switch {
	case info.IsDir() && c.recursive && depth < maxDepth:
		return c.sendFolder(name, info, depth)
	case !info.Mode().IsRegular():
		return c.complain(fmt.Errorf("%s: not a regular file", path.Base(name)))
	}
	t, err := c.files.openFile(facts.Facts{Verb: facts.Read}, "read", name, syscall.O_RDONLY, 0)
	if err != nil {
		return c.complain(err)
	}
	err = c.sendFile(t, info)
	t.cut = err != nil
	return errors.Join(skipped(err), t.Close())
}

// head announces a file or folder.
func (c *copier) head(kind byte, info fs.FileInfo, size int64) error {
	if c.times {
		if _, err := fmt.Fprintf(c.out, "T%d 0 %[1]d 0\n", info.ModTime().Unix()); err != nil {
			return err
		}
		if err := c.answered(); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(c.out, "%c%04o %d %s\n", kind, info.Mode().Perm(), size, printable(info.Name())); err != nil {
		return err
	}
	return c.answered()
}

func (c *copier) sendFile(t *transfer, info fs.FileInfo) error {
	if err := c.head('C', info, info.Size()); err != nil {
		return err
	}
	n, err := io.Copy(c.out, io.NewSectionReader(t, 0, info.Size()))
	if err == nil && n == info.Size() {
		err = c.ok()
	} else if err == nil {
		// The client was told how much comes, and waits for it.
		if _, err = io.CopyN(c.out, zeros{}, info.Size()-n); err == nil {
			err = c.complain(fmt.Errorf("%s: it has become shorter", info.Name()))
		}
	}
	if err != nil {
		return err
	}
	return c.answered()
}

// zeros are read without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (c *copier) sendFolder(name string, info fs.FileInfo, depth int) error {
	entries, err := c.files.look("list", name, c.files.host.ReadDir)
	if err != nil {
		return c.complain(err)
	}
	if err := c.head('D', info, 0); err != nil {
		return skipped(err)
	}
	for _, e := range entries {
		if err := c.send(path.Join(name, e.Name()), depth+1); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(c.out, "E\n"); err != nil {
		return err
	}
	return skipped(c.answered())
}

// sink takes files from the client into a folder, or as the one file of that name. Which of
// these it is shows what there is at the host, and so a refusal speaks of into either way.
func (c *copier) sink(into string, inside bool) error {
	if err := c.ok(); err != nil {
		return err
	}
	var before stamps
	for {
		line, err := c.line()
		switch {
		case errors.Is(err, io.EOF) && !inside:
			return nil
		case err != nil:
			return err
		case line == "E" && inside:
			return nil
		case line == "":
			return errors.New("an empty line")
		case line[0] == 'T':
			if before, err = stamped(line); err != nil {
				return errors.Join(c.complain(err), err)
			}
			if err := c.ok(); err != nil {
				return err
			}
			continue
		case line[0] == 1: // it cannot read one, and goes on with the next
			c.failed = true
			continue
		case line[0] == 2:
			return errors.New("the client says: " + printable(line[1:]))
		}
		mode, size, name, err := announced(line)
		if err != nil {
			return errors.Join(c.complain(err), err)
		}
		at := before
		before = stamps{}
		to := facts.Facts{Verb: facts.Write, Asked: into}
		target := path.Join(into, name)
		if inside {
			to.Asked = target
		} else if !c.folder && !c.isFolder(into) { // of several files none takes the place of the one before
			target = into
		}
		switch {
		case line[0] == 'D' && c.recursive:
			err = c.takeFolder(to, target, mode, at)
		case line[0] == 'C':
			err = c.takeFile(to, target, mode, at, size)
		default:
			err = errors.New("not asked for")
		}
		if err != nil {
			return err
		}
	}
}

// stamps are when a file was changed and read, in seconds since 1970 as SFTP has them.
type stamps struct {
	said          bool
	changed, read int64
}

// stamped reads "T1700000000 0 1700000000 0", which comes before an announcement.
func stamped(line string) (stamps, error) {
	at := stamps{said: true}
	fields := strings.Fields(line[1:])
	if len(fields) != 4 {
		return stamps{}, errors.New("the times of a file cannot be read")
	}
	for i, into := range map[int]*int64{0: &at.changed, 2: &at.read} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return stamps{}, errors.New("the times of a file cannot be read")
		}
		*into = min(max(n, 0), math.MaxUint32)
	}
	return at, nil
}

// stamp gives what was taken its times, with -p.
func (c *copier) stamp(o *operation, name string, at stamps) error {
	if !c.times || !at.said {
		return nil
	}
	return c.files.use(o, func() error { return c.files.host.Chtimes(name, time.Unix(at.read, 0), time.Unix(at.changed, 0)) })
}

// announced reads "C0644 12 name". A name is one of a file in a folder, and no path.
func announced(line string) (mode fs.FileMode, size int64, name string, err error) {
	fields := strings.SplitN(line[1:], " ", 3)
	if len(fields) == 3 {
		var m uint64
		if m, err = strconv.ParseUint(fields[0], 8, 32); err == nil {
			size, err = strconv.ParseInt(fields[1], 10, 64)
		}
		name = fields[2]
		if err == nil && size >= 0 && name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00") {
			return fs.FileMode(m) & fs.ModePerm, size, name, nil
		}
	}
	return 0, 0, "", errors.New("the announcement of a file cannot be read")
}

func (c *copier) isFolder(name string) bool {
	info, err := c.files.host.Stat(name)
	return err == nil && info.IsDir()
}

// takeFolder makes a folder where there is none, and takes what is in it. The client goes on
// after one that cannot be made, as after a file.
func (c *copier) takeFolder(to facts.Facts, name string, mode fs.FileMode, at stamps) error {
	o, err := c.files.admit(to, "mkdir", name)
	if err != nil {
		return c.complain(err)
	}
	err = c.files.use(o, func() error {
		if c.isFolder(name) {
			return nil
		}
		return c.files.makeFolder(name, mode|0o700) // for what is in it
	})
	if err := c.files.finish(o.execution, "mkdir", err); err != nil {
		return c.complain(err)
	}
	if err := c.sink(name, true); err != nil {
		return err
	}
	if c.times && at.said { // what was put into it has changed them
		if o, err = c.files.admit(to, "setstat", name); err != nil {
			return c.complain(err)
		}
		if err := c.files.finish(o.execution, "setstat", c.stamp(o, name, at)); err != nil {
			return c.complain(err)
		}
	}
	return c.ok()
}

func (c *copier) takeFile(to facts.Facts, name string, mode fs.FileMode, at stamps, size int64) error {
	t, err := c.files.openFile(to, "write", name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_TRUNC, mode)
	if err != nil {
		return c.complain(err)
	}
	lost, err := c.receive(t, size)
	t.cut = lost != nil || err != nil
	if !t.cut && c.times { // -p
		err = errors.Join(t.far.Chmod(mode), c.stamp(t.op, name, at))
	}
	err = errors.Join(err, t.Close())
	switch {
	case skipped(lost) != nil:
		return errors.Join(lost, err)
	case err != nil:
		return c.complain(err)
	}
	return c.ok()
}

// receive writes what comes of a file. The client sends all of it also where it cannot be
// written; lost is what came in its place.
func (c *copier) receive(t *transfer, size int64) (lost, err error) {
	if lost = c.ok(); lost != nil {
		return lost, nil
	}
	rest := &io.LimitedReader{R: c.in, N: size}
	_, err = io.Copy(io.NewOffsetWriter(t, 0), rest)
	_, _ = io.Copy(io.Discard, rest)
	if rest.N > 0 {
		return io.ErrUnexpectedEOF, nil
	}
	return c.answered(), err
}
