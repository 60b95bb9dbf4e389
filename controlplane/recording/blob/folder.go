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
)

// Folder is Blobs as files below a folder.
type Folder struct{ root *os.Root }

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
	return &Folder{root}, nil
}

// Close closes the folder.
func (f *Folder) Close() error { return f.root.Close() }

// Create implements Blobs. The blob is written before it has its name, so that this never
// shows a part of it.
func (f *Folder) Create(_ context.Context, name string, data []byte) error {
	if err := check(name, data); err != nil {
		return err
	}
	err := f.create(name, data)
	if errors.Is(err, fs.ErrExist) {
		return ErrExists
	}
	if err != nil {
		return fmt.Errorf("blob: create %s: %w", name, err)
	}
	return nil
}

func (f *Folder) create(name string, data []byte) (err error) {
	in, base := path.Split(name)
	in = path.Clean(in)
	dir, err := f.root.Open(in)
	if errors.Is(err, fs.ErrNotExist) {
		if err = f.mkdir(in); err == nil {
			dir, err = f.root.Open(in)
		}
	}
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
	if err := CheckName(name); err != nil {
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
	if err := CheckName(name); err != nil {
		return err
	}
	switch err := f.root.Remove(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("blob: delete %s: %w", name, err)
	}
	return f.sync(path.Dir(name))
}

// List implements Blobs.
func (f *Folder) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		dir := strings.TrimSuffix(prefix, "/")
		if dir == "" {
			dir = "."
		} else if err := CheckName(dir); err != nil {
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
