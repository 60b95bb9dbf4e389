package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/posterngate/postern/pkg/run"
)

// Folder is Blobs as files below a folder.
type Folder struct {
	root *os.Root

	mu    sync.Mutex
	above *parent // in which a folder was made last
}

// A parent is a folder in which folders are made, kept open: recordings of a day are beside
// each other. It is closed when nobody has it any more.
type parent struct {
	name   string
	root   *os.Root
	synced run.Shared[struct{}]
}

var _ Blobs = (*Folder)(nil)

const unfinished = ".new-"

// OpenFolder opens the folder at dir, and makes it if it is missing.
func OpenFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	return &Folder{root: root}, nil
}

// Close closes the folder.
func (f *Folder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	if f.above != nil {
		err = f.above.root.Close()
	}
	return errors.Join(err, f.root.Close())
}

// Create implements Blobs. The blob is written before it has its name, so that this never
// shows a part of it.
func (f *Folder) Create(ctx context.Context, name string, data []byte) error {
	if err := check(name, data); err != nil {
		return err
	}
	err := f.create(ctx, name, data)
	if errors.Is(err, fs.ErrExist) {
		return ErrExists
	}
	if err != nil {
		return fmt.Errorf("blob: create %s: %w", name, err)
	}
	return nil
}

func (f *Folder) create(ctx context.Context, name string, data []byte) (err error) {
	in, base := path.Split(name)
	in = path.Clean(in)
	dir, err := f.open(ctx, in)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	done, err := createUnnamed(dir, base, data)
	if err == nil && !done {
		err = f.createNamed(in, base, data)
	}
	if err != nil {
		return err
	}
	return dir.Sync()
}

// open opens a folder, which is made where it is missing: durable, in a folder that is kept
// open.
func (f *Folder) open(ctx context.Context, in string) (*os.File, error) {
	up, leaf := path.Split(in)
	p, err := f.parent(path.Clean(up))
	if err != nil {
		return nil, err
	}
	dir, err := p.root.Open(leaf)
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	err = p.root.Mkdir(leaf, 0o700)
	if errors.Is(err, fs.ErrNotExist) { // somebody has removed the parent
		f.drop(p)
		if err = f.mkdir(in); err == nil {
			return f.root.Open(in)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := p.sync(ctx); err != nil {
		return nil, err
	}
	return p.root.Open(leaf)
}

// parent is a folder in which others are made.
func (f *Folder) parent(name string) (*parent, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.above != nil && f.above.name == name {
		return f.above, nil
	}
	if err := f.mkdir(name); err != nil {
		return nil, err
	}
	root, err := f.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	f.above = &parent{name: name, root: root}
	return f.above, nil
}

// drop forgets a parent.
func (f *Folder) drop(p *parent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.above == p {
		f.above = nil
	}
}

// sync makes durable what was made in the folder; all who come together do it once.
func (p *parent) sync(ctx context.Context) error {
	_, err := p.synced.Do(ctx, func(context.Context) (struct{}, error) {
		d, err := p.root.Open(".")
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, errors.Join(d.Sync(), d.Close())
	})
	return err
}

// createNamed writes the blob under another name first.
func (f *Folder) createNamed(dir, base string, data []byte) (err error) {
	temporary := path.Join(dir, unfinished+rand.Text())
	file, err := f.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.root.Remove(temporary)) }()
	if err := errors.Join(fill(file, data), file.Close()); err != nil {
		return err
	}
	return f.root.Link(temporary, path.Join(dir, base))
}

// fill writes data to the disk.
func fill(file *os.File, data []byte) error {
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.Sync()
}

// mkdir makes the folders down to dir, each durable in the one above.
func (f *Folder) mkdir(dir string) error {
	if dir == "." {
		return nil
	}
	if _, err := f.root.Stat(dir); err == nil {
		return nil
	}
	if err := f.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	if err := f.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return f.sync(path.Dir(dir))
}

func (f *Folder) sync(dir string) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Read implements Blobs.
func (f *Folder) Read(_ context.Context, name string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	info, err := f.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > MaxBytes) {
		err = errors.New("it is no blob")
	}
	if err != nil {
		return nil, fmt.Errorf("blob: read %s: %w", name, err)
	}
	data, err := f.root.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("blob: read %s: %w", name, err)
	}
	return data, nil
}

// Delete implements Blobs.
func (f *Folder) Delete(_ context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	switch err := f.root.Remove(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("blob: delete %s: %w", name, err)
	}
	// With its last blob a folder goes: its name is a session's. Whoever makes one there at
	// this moment makes the folder anew, or fails and tries again.
	dir := path.Dir(name)
	for dir != "." && f.root.Remove(dir) == nil {
		dir = path.Dir(dir)
	}
	if err := f.sync(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob: delete %s: %w", name, err)
	}
	return nil
}

// List implements Blobs.
func (f *Folder) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		dir := strings.TrimSuffix(prefix, "/")
		if dir == "" {
			dir = "."
		} else if err := checkName(dir); err != nil {
			yield("", err)
			return
		}
		err := fs.WalkDir(f.root.FS(), dir, func(name string, entry fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // nothing is there, or it went in the meantime
			case err != nil:
				return err
			case ctx.Err() != nil:
				return ctx.Err()
			case !entry.Type().IsRegular() || strings.HasPrefix(path.Base(name), unfinished):
				return nil
			case !yield(name, nil):
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			yield("", fmt.Errorf("blob: list %s: %w", prefix, err))
		}
	}
}
