package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/posterngate/postern/controlplane/store"
)

// quiet is how long a watch may say nothing before it is asked how far it is, and askedFor
// how long it need not be because another was.
const (
	quiet    = time.Second
	askedFor = quiet / 2
)

// watcher is one watch of the whole prefix; other kinds are dropped here, so that their
// revisions still count as progress.
type watcher struct {
	store  *Store
	ctx    context.Context // of the watch: a connection type, and so it keeps one
	cancel context.CancelFunc
	ch     clientv3.WatchChan
	kinds  map[string]bool // empty means all
	seen   int64           // the last revision told
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, from int64, kinds ...string) (store.Watcher, error) {
	now, err := s.revision(ctx)
	if err != nil {
		return nil, fmt.Errorf("etcd: watch: %w", err)
	}
	if from == 0 {
		from = now + 1
	}
	// etcd waits without a word for a revision that may never come.
	if from > now+1 {
		return nil, fmt.Errorf("etcd: watch from %d, but the store is at %d: %w", from, now, store.ErrCompacted)
	}
	w := &watcher{store: s, kinds: make(map[string]bool), seen: from - 1}
	for _, k := range kinds {
		w.kinds[k] = true
	}
	w.ctx, w.cancel = context.WithCancel(clientv3.WithRequireLeader(ctx))
	w.ch = s.client.Watch(w.ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from),
		clientv3.WithFragment(), clientv3.WithProgressNotify())
	return w, nil
}

// Next implements store.Watcher.
func (w *watcher) Next(ctx context.Context) (store.Batch, error) {
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		select {
		case r, ok := <-w.ch:
			if !ok {
				return store.Batch{}, errors.Join(errors.New("etcd: the watch has ended"), context.Cause(w.ctx))
			}
			if b, news, err := w.batch(r); news || err != nil {
				return b, err
			}
		case <-timer.C:
			w.ask(ctx)
			timer.Reset(quiet)
		case <-ctx.Done():
			return store.Batch{}, context.Cause(ctx)
		}
	}
}

// batch reads one response. The header of one with events may be ahead of them, so
// there the last event says how far it goes.
func (w *watcher) batch(r clientv3.WatchResponse) (b store.Batch, news bool, err error) {
	if err := r.Err(); err != nil {
		if r.CompactRevision != 0 || errors.Is(err, rpctypes.ErrCompacted) {
			return b, false, fmt.Errorf("etcd: watch: %w", store.ErrCompacted)
		}
		return b, false, fmt.Errorf("etcd: watch: %w", err)
	}
	b.Revision = r.Header.Revision
	if len(r.Events) > 0 {
		b.Revision = r.Events[len(r.Events)-1].Kv.ModRevision
	} else if !r.IsProgressNotify() {
		return b, false, nil // the watch was created
	}
	for _, ev := range r.Events {
		k, ok := keyOf(ev.Kv.Key)
		if !ok || (len(w.kinds) > 0 && !w.kinds[k.Kind]) {
			continue
		}
		e := store.Event{Entry: store.Entry{Key: k, Revision: ev.Kv.ModRevision}}
		if ev.Type == mvccpb.Event_DELETE {
			e.Deleted = true
		} else {
			e.Value = ev.Kv.Value
		}
		b.Events = append(b.Events, e)
	}
	if b.Revision < w.seen {
		return b, false, nil // progress that was overtaken
	}
	w.seen = b.Revision
	return b, true, nil
}

// ask asks the server how far the watch is; the answer comes as a response without
// events, to all watches, for they share a stream: who has asked has done it for the others.
// While the stream is being made anew nothing can be asked, and need not be.
func (w *watcher) ask(ctx context.Context) {
	if !w.store.toAsk() {
		return
	}
	asking, cancel := context.WithTimeout(w.ctx, quiet)
	defer cancel()
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	_ = w.store.client.RequestProgress(asking) // the watch itself reports what is wrong with it
}

// toAsk reports whether the server is to be asked now, which it then is.
func (s *Store) toAsk() bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.asked) < askedFor {
		return false
	}
	s.asked = now
	return true
}

// Close implements store.Watcher.
func (w *watcher) Close() { w.cancel() }
