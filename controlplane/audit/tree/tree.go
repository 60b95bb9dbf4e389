// Package tree writes the audit log as an append-only Merkle log in a folder, with
// checkpoints that are signed with a key from a file. One process at a time writes;
// pkg/trail reads and verifies.
package tree

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"

	"github.com/posterngate/postern/pkg/secret"
)

const (
	// Two batches of the library could overtake each other, so that leaves are added as
	// one: before its time is over, or it is full.
	batchSize  = 256
	batchAge   = 100 * time.Millisecond
	checkpoint = 500 * time.Millisecond // how often one is made at most
	awaitEvery = 50 * time.Millisecond
	// collectEvery is how often what full tiles have made superfluous is removed; a tree
	// that is closed sooner leaves it to the next.
	collectEvery = 5 * time.Second
	maxKeyFile   = 4 << 10
	// publishWait is how long a checkpoint may take. Where its file cannot be written the library
	// tries again for ever, and tells nobody.
	publishWait = 30 * time.Second
)

// A Key signs checkpoints.
type Key struct {
	signer note.Signer
	// Verifier is the public half, in the form of a note verifier key.
	Verifier string
}

// OpenKey reads the key at path, and makes one, of mode 0600, where there is no file.
// The public half is written beside it, with the suffix .pub. A file that others may
// read is refused.
func OpenKey(path string) (Key, error) {
	k, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeKey(path); err == nil {
			k, err = readKey(path)
		}
	}
	if err != nil {
		return Key{}, fmt.Errorf("key of the audit log: %w", err)
	}
	return k, nil
}

func readKey(path string) (Key, error) {
	text, err := secret.ReadFile(path, maxKeyFile)
	if err != nil {
		return Key{}, err
	}
	defer clear(text)
	lines := strings.Fields(string(text))
	if len(lines) != 2 {
		return Key{}, fmt.Errorf("%s does not hold a key and its public half", path)
	}
	signer, err := note.NewSigner(lines[0])
	if err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := note.NewVerifier(lines[1]); err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return Key{signer, lines[1]}, nil
}

// makeKey writes a new key; a file that came first wins.
func makeKey(path string) error {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	private, public, err := note.GenerateKey(rand.Reader, "postern.audit."+hex.EncodeToString(id[:]))
	if err != nil {
		return err
	}
	if err := secret.MakeFile(path, fmt.Appendf(nil, "%s\n%s\n", private, public)); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	// What a lost key has signed verifies by its public half alone: each one stays.
	old := path + ".pub.old"
	for n := 2; exists(old); n++ {
		old = fmt.Sprintf("%s.pub.old%d", path, n)
	}
	if err := os.Rename(path+".pub", old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path+".pub", []byte(public+"\n"), 0o644)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// A Tree is the log, open for writing. It is for one goroutine.
type Tree struct {
	appender *tessera.Appender
	reader   tessera.LogReader
	shutdown func(context.Context) error
	stop     context.CancelFunc
	dir      string
	wait     time.Duration
}

// logging has the library log through us. It logs through one logger of the process, which
// must not change while a tree works: the first one stays.
var logging sync.Once

// warnings passes on what is worse than information: what the library tells of its work is
// text that was put together, and news to nobody. Its warnings come as information, too, so
// what fails here is told by errors of ours.
type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && w.Handler.Enabled(ctx, l)
}

func (w warnings) WithAttrs(a []slog.Attr) slog.Handler { return warnings{w.Handler.WithAttrs(a)} }
func (w warnings) WithGroup(g string) slog.Handler      { return warnings{w.Handler.WithGroup(g)} }

// Open opens the log in a folder, which is made if it is missing. It works until Close.
func Open(ctx context.Context, dir string, key Key, log *slog.Logger) (*Tree, error) {
	logging.Do(func() { klog.SetSlogLogger(slog.New(warnings{log.With("part", "tessera").Handler()})) })
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit tree: %w", err)
	}
	if err := notAhead(filepath.Join(dir, "checkpoint")); err != nil {
		return nil, fmt.Errorf("audit tree: %w", err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	t := &Tree{stop: stop, dir: dir, wait: publishWait}
	driver, err := posix.New(ctx, posix.Config{Path: dir})
	if err == nil {
		opts := tessera.NewAppendOptions().WithCheckpointSigner(key.signer).WithBatching(batchSize, batchAge).
			WithCheckpointInterval(checkpoint).WithGarbageCollectionInterval(collectEvery)
		t.appender, t.shutdown, t.reader, err = tessera.NewAppender(ctx, driver, opts)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("audit tree: %s: %w", dir, err)
	}
	return t, nil
}

// notAhead sees to it that a file's time does not lie ahead. The library makes no checkpoint while
// the last one is younger than a moment, and one from before a clock was put back always is.
func notAhead(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if now := time.Now(); err == nil && info.ModTime().After(now) {
		err = os.Chtimes(path, now, now)
	}
	return err
}

// Size is how many leaves there are.
func (t *Tree) Size(ctx context.Context) (uint64, error) {
	n, err := t.reader.NextIndex(ctx)
	if err != nil {
		return 0, fmt.Errorf("audit tree: %w", err)
	}
	return n, nil
}

// Append adds leaves, of which the first gets the index first, and returns once a
// signed checkpoint tells of all of them. After an error some may have been added: ask
// for Size again.
func (t *Tree) Append(ctx context.Context, first uint64, leaves [][]byte) error {
	var last tessera.IndexFuture
	for len(leaves) > 0 {
		began := time.Now()
		var futures []tessera.IndexFuture
		for len(futures) < min(len(leaves), batchSize) && time.Since(began) < batchAge/2 {
			futures = append(futures, t.appender.Add(ctx, tessera.NewEntry(leaves[len(futures)])))
		}
		for _, f := range futures {
			at, err := f()
			if err != nil {
				return fmt.Errorf("audit tree: leaf %d: %w", first, err)
			}
			if at.Index != first {
				return fmt.Errorf("audit tree: leaf %d was given the place %d: somebody else writes to the log", first, at.Index)
			}
			first++
			last = f
		}
		leaves = leaves[len(futures):]
	}
	if last == nil {
		return nil
	}
	polling, stop := context.WithTimeout(ctx, t.wait) // it reads the checkpoint again and again
	defer stop()
	_, _, err := tessera.NewPublicationAwaiter(polling, t.reader.ReadCheckpoint, awaitEvery).Await(ctx, last)
	if polling.Err() != nil && ctx.Err() == nil {
		err = errors.Join(fmt.Errorf("none tells of leaf %d after %s", first-1, t.wait), t.writable())
	}
	if err != nil {
		return fmt.Errorf("audit tree: checkpoint in %s: %w", t.dir, err)
	}
	return nil
}

// writable is why nothing can be written to the folder: there is no room, for one.
func (t *Tree) writable() error {
	f, err := os.CreateTemp(t.dir, "probe-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4<<10))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// Close ends the writing.
func (t *Tree) Close(ctx context.Context) error {
	err := t.shutdown(ctx)
	t.stop()
	if err != nil {
		return fmt.Errorf("audit tree: %w", err)
	}
	return nil
}
