package ssh

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync/atomic"

	"github.com/pkg/sftp"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
)

// files serves SFTP: each operation is judged by the file that it concerns, as the host
// itself resolves it, and then done there.
func (s *channel) files(ctx context.Context) {
	f, err := s.openFiles(ctx, "sftp", func(r *postern.Refusal) { _, _ = s.ch.Stderr().Write([]byte(say(r))) })
	if err != nil {
		s.refuse(err)
		return
	}
	defer f.close()
	h := sftp.Handlers{FileGet: f, FilePut: f, FileCmd: f, FileList: f}
	f.asked = newRequests(s.ch)
	server := sftp.NewRequestServer(unclosed{f.asked}, h, sftp.WithStartDirectory(f.home))
	stop := context.AfterFunc(ctx, func() { _ = s.ch.Close() })
	defer stop()
	if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) {
		s.c.log.Debug("file transfer ended", "error", err)
	}
	s.exit(0)
	_ = server.Close()
}

// unclosed is a channel that outlives the server on it, for the exit status comes last.
type unclosed struct{ io.ReadWriter }

func (unclosed) Close() error { return nil }

// files are the host's files, as far as the session may reach them.
type files struct {
	c      *conn
	ctx    context.Context
	host   *sftp.Client
	home   string
	tell   func(*postern.Refusal) // says why something is refused, in words
	notice func(string)           // says what is waited for
	open   atomic.Int64           // files and folders
	names  *names
	left   func()    // gives them back
	asked  *requests // nil but for SFTP
}

var (
	_ sftp.FileReader           = (*files)(nil)
	_ sftp.FileWriter           = (*files)(nil)
	_ sftp.PosixRenameFileCmder = (*files)(nil)
	_ sftp.StatVFSFileCmder     = (*files)(nil)
	_ sftp.LstatFileLister      = (*files)(nil)
	_ sftp.ReadlinkFileLister   = (*files)(nil)
)

// openFiles begins to work on files, as what the client asked for in that text.
func (s *channel) openFiles(ctx context.Context, text string, tell func(*postern.Refusal)) (*files, error) {
	c := s.c
	if err := c.letIn(ctx, s.notice); err != nil {
		return nil, err // the host hears nothing before
	}
	judging, cancel := context.WithTimeout(ctx, c.e.limits.Prepare)
	defer cancel()
	if _, err := c.s.Prepare(judging, statement(&facts.Facts{Verb: facts.Files}, text)); err != nil {
		return nil, err
	}
	client, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	host, err := sftp.NewClient(client)
	if err != nil {
		return nil, &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the host offers no SFTP", Cause: err}
	}
	home, err := host.Getwd()
	if err != nil || !path.IsAbs(home) {
		home = "/"
	}
	f := &files{c: c, ctx: ctx, host: host, home: home, tell: tell, notice: s.notice}
	f.names, f.left = c.e.hosts.of(who{c.terms.Subject, c.terms.Resource})
	return f, nil
}

func (f *files) close() {
	_ = f.host.Close()
	f.left()
}

// resolve is what a path means at the host: links are followed as far as there is
// something, so that a link cannot lead out of what the task permits.
func (f *files) resolve(name string) (string, error) {
	if !path.IsAbs(name) || strings.ContainsRune(name, 0) || len(name) > f.c.e.limits.Text {
		return "", fs.ErrInvalid
	}
	name = path.Clean(name)
	rest := ""
	for at := name; ; at = path.Dir(at) {
		real, err := f.host.RealPath(at)
		if err == nil && at != "/" && rest != "" {
			// OpenSSH resolves what is not there, but not through a link that is.
			if info, serr := f.host.Stat(at); serr != nil || !info.IsDir() {
				err = fs.ErrNotExist
			}
		}
		if err == nil {
			if !path.IsAbs(real) {
				return "", fs.ErrInvalid
			}
			return path.Join(real, rest), nil
		}
		if at == "/" {
			return "", err
		}
		rest = path.Join(path.Base(at), rest)
	}
}

// admit judges one operation on files, named as they were asked for.
func (f *files) admit(fa facts.Facts, what string, names ...string) (*operation, error) {
	o, err := f.judge(&fa, what, names)
	if err == nil {
		return o, nil
	}
	var r *postern.Refusal
	if !errors.As(err, &r) {
		return nil, err
	}
	return nil, f.refuse(r)
}

// refuse says why something is not done, and returns what the client is told.
func (f *files) refuse(r *postern.Refusal) error {
	f.tell(r)
	if fatal(r) {
		f.c.end(r)
	}
	return &denied{r}
}

// denied is a refusal as SFTP has it.
type denied struct{ why *postern.Refusal }

func (d *denied) Error() string { return "postern: " + printable(d.why.Reason) }
func (d *denied) Unwrap() error { return sftp.ErrSSHFxPermissionDenied }

// judge fills in what the names mean. Those that were asked for come first, so that nobody
// is told where a link leads that is not theirs to follow.
func (f *files) judge(fa *facts.Facts, what string, names []string) (*operation, error) {
	fa.Asked = cmp.Or(fa.Asked, strings.Join(names, " "))
	fa.Home = f.home
	text := what
	o := &operation{names: names, moves: f.names.moved()}
	for _, name := range names {
		real, err := f.resolve(name)
		if err != nil {
			return nil, err
		}
		o.meant = append(o.meant, real)
		fa.Paths = append(fa.Paths, path.Clean(name))
		text += " " + quoted(name)
		if real != path.Clean(name) {
			text += " (" + quoted(real) + ")"
			fa.Paths = append(fa.Paths, real)
		}
	}
	if len(o.meant) == 2 {
		fa.From, fa.To = o.meant[0], o.meant[1]
	}
	var err error
	o.execution, err = f.c.admit(f.ctx, statement(fa, text), f.notice)
	return o, err
}

// finish records how an operation ended, and returns what the client is told.
func (f *files) finish(x *execution, tag string, err error) error {
	o := engine.Outcome{Tag: tag}
	if err != nil {
		o.Code, o.Message = "failed", printable(err.Error())
	}
	if derr := x.done(o); derr != nil {
		f.c.end(derr)
		return errors.Join(err, derr)
	}
	if errors.Is(err, fs.ErrPermission) {
		return sftp.ErrSSHFxPermissionDenied // the host says so
	}
	return err
}

// noLinks is why links are not made.
var noLinks = &postern.Refusal{
	Reason: "no links are made over SFTP: they would lead to what the task does not permit",
	Hint:   "copy the file, or make the link by a command that the task allows",
}

// Filecmd does what has no data.
func (f *files) Filecmd(r *sftp.Request) error {
	switch r.Method {
	case "Setstat":
		return f.setstat(r)
	case "Rename":
		return f.two(r, f.host.Rename)
	case "Rmdir":
		return f.one(facts.Delete, "rmdir", r, f.host.RemoveDirectory)
	case "Remove":
		return f.one(facts.Delete, "remove", r, f.host.Remove)
	case "Mkdir":
		mode := f.asked.folder()
		return f.one(facts.Write, "mkdir", r, func(name string) error { return f.makeFolder(name, mode) })
	case "Link", "Symlink":
		f.tell(noLinks)
	}
	return sftp.ErrSSHFxOpUnsupported
}

// PosixRename renames over what is there.
func (f *files) PosixRename(r *sftp.Request) error { return f.two(r, f.host.PosixRename) }

func (f *files) one(verb facts.Verb, what string, r *sftp.Request, do func(string) error) error {
	o, err := f.admit(facts.Facts{Verb: verb}, what, r.Filepath)
	if err != nil {
		return err
	}
	return f.finish(o.execution, what, f.use(o, func() error { return do(r.Filepath) }))
}

// makeFolder makes a folder with the permissions of mode, as far as the host lets; 0 leaves them to
// it. The library sets none as it makes one.
func (f *files) makeFolder(name string, mode fs.FileMode) error {
	if err := f.host.Mkdir(name); err != nil || mode == 0 {
		return err
	}
	if made, err := f.host.Stat(name); err == nil && let(mode, made.Mode()) != made.Mode().Perm() {
		_ = f.host.Chmod(name, let(mode, made.Mode())) // where that cannot be, the host has its own ways
	}
	return nil
}

// two moves a file, or a folder with all that is in it.
func (f *files) two(r *sftp.Request, do func(string, string) error) error {
	what, folder := "rename", f.isFolder(r.Filepath)
	if folder {
		what = "rename folder"
	}
	o, err := f.admit(facts.Facts{Verb: facts.Write, Below: folder}, what, r.Filepath, r.Target)
	if err != nil {
		return err
	}
	return f.finish(o.execution, what, f.move(o, func() error {
		if f.isFolder(r.Filepath) != folder {
			return f.elsewhere()
		}
		return do(r.Filepath, r.Target)
	}))
}

// isFolder reports whether a name is one of a folder itself, and not of a link to one.
func (f *files) isFolder(name string) bool {
	info, err := f.host.Lstat(name)
	return err == nil && info.IsDir()
}

func (f *files) setstat(r *sftp.Request) error {
	o, err := f.admit(facts.Facts{Verb: facts.Write}, "setstat", r.Filepath)
	if err != nil {
		return err
	}
	return f.finish(o.execution, "setstat", f.use(o, func() error { return f.change(r) }))
}

func (f *files) change(r *sftp.Request) error {
	flags, a := r.AttrFlags(), r.Attributes()
	if a == nil {
		return sftp.ErrSSHFxBadMessage // fewer than the flags say
	}
	var errs error
	if flags.Size {
		errs = errors.Join(errs, f.host.Truncate(r.Filepath, int64(a.Size))) //nolint:gosec // the host refuses what is negative
	}
	if flags.Permissions {
		errs = errors.Join(errs, f.host.Chmod(r.Filepath, a.FileMode().Perm())) // never setuid
	}
	if flags.Acmodtime {
		errs = errors.Join(errs, f.host.Chtimes(r.Filepath, a.AccessTime(), a.ModTime()))
	}
	if flags.UidGid && !f.isOf(r.Filepath, a.UID, a.GID) {
		errs = errors.Join(errs, sftp.ErrSSHFxPermissionDenied) // owners stay
	}
	return errs
}

// isOf reports whether a file has these owners already: tar and cp -a say so of each that they make.
func (f *files) isOf(name string, user, group uint32) bool {
	info, err := f.host.Stat(name)
	return err == nil && owned{info}.Uid() == user && owned{info}.Gid() == group
}

// Filelist lists a folder or looks at a file.
func (f *files) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	switch r.Method {
	case "List":
		return f.openFolder(r)
	case "Stat":
		return f.look("stat", r.Filepath, f.stat)
	}
	return nil, sftp.ErrSSHFxOpUnsupported
}

// Readlink says where a link leads, to whom may look there.
func (f *files) Readlink(name string) (string, error) {
	o, err := f.admit(facts.Facts{Verb: facts.Read}, "readlink", name)
	if err != nil {
		return "", err
	}
	var to string
	err = f.use(o, func() (err error) {
		to, err = f.host.ReadLink(name)
		return err
	})
	return to, f.finish(o.execution, "readlink", err)
}

// StatVFS says how much room there is where a file is.
func (f *files) StatVFS(r *sftp.Request) (room *sftp.StatVFS, err error) {
	o, err := f.admit(facts.Facts{Verb: facts.Read}, "statvfs", r.Filepath)
	if err != nil {
		return nil, err
	}
	err = f.use(o, func() (err error) {
		room, err = f.host.StatVFS(r.Filepath)
		return err
	})
	return room, f.finish(o.execution, "statvfs", err)
}

// Lstat looks at a file and not behind it.
func (f *files) Lstat(r *sftp.Request) (sftp.ListerAt, error) {
	return f.look("stat", r.Filepath, func(name string) ([]fs.FileInfo, error) { return oneOf(f.host.Lstat(name)) })
}

func (f *files) stat(name string) ([]fs.FileInfo, error) { return oneOf(f.host.Stat(name)) }

// openFolder lists a folder. What is in it is kept until the client closes it.
func (f *files) openFolder(r *sftp.Request) (sftp.ListerAt, error) {
	if err := f.take(); err != nil {
		return nil, err
	}
	if f.c.aside.full() {
		f.give()
		return nil, errors.New("postern: too many files are open")
	}
	entries, err := f.look("list", r.Filepath, f.host.ReadDir)
	if err != nil {
		f.give()
		return nil, err
	}
	size := 0
	for _, e := range entries {
		size += entryCost + len(e.Name())
	}
	f.c.aside.add(size)
	return &folder{entries, func() { f.c.aside.add(-size); f.give() }}, nil
}

// entryCost is what an entry of a folder takes beside its name, in bytes.
const entryCost = 256

// folder is an open folder; its end is told once, by the one that closes it.
type folder struct {
	listing
	closed func()
}

func (d *folder) Close() error {
	d.closed()
	return nil
}

func oneOf(i fs.FileInfo, err error) ([]fs.FileInfo, error) {
	if err != nil {
		return nil, err
	}
	return []fs.FileInfo{i}, nil
}

func (f *files) look(what, name string, do func(string) ([]fs.FileInfo, error)) (listing, error) {
	o, err := f.admit(facts.Facts{Verb: facts.Read}, what, name)
	if err != nil {
		return nil, err
	}
	var infos []fs.FileInfo
	err = f.use(o, func() (err error) {
		infos, err = do(name)
		return err
	})
	if err := f.finish(o.execution, what, err); err != nil {
		return nil, err
	}
	return infos, nil
}

// listing is the entries of a folder.
type listing []fs.FileInfo

// ListAt copies what comes after offset.
func (l listing) ListAt(into []fs.FileInfo, offset int64) (int, error) {
	if offset >= int64(len(l)) {
		return 0, io.EOF
	}
	n := min(len(into), len(l)-int(offset))
	for i := range n {
		into[i] = owned{l[int(offset)+i]}
	}
	if n < len(into) {
		return n, io.EOF
	}
	return n, nil
}

// owned says whose a file is; the library tells it of files of its own system alone.
type owned struct{ fs.FileInfo }

var _ sftp.FileInfoUidGid = owned{}

func (o owned) Uid() uint32 { return o.Sys().(*sftp.FileStat).UID }
func (o owned) Gid() uint32 { return o.Sys().(*sftp.FileStat).GID }
