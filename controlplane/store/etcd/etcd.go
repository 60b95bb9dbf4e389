// Package etcd is the store on etcd, embedded in this process or an external cluster.
// The embedded server listens on nothing but a unix socket in a folder that only this
// user may enter: there is no port, and no peer can join. An external cluster is for
// its operators to run: TLS, a user for the prefix /postern/v1/, and
// --auto-compaction-retention=5m.
package etcd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/posterngate/postern/controlplane/store"
)

const (
	prefix     = "/postern/v1/"
	pageSize   = 500 // entries of one read of a listing
	dialWait   = 5 * time.Second
	keepalive  = 10 * time.Second
	epochName  = "current"
	epochBytes = 16
)

// Config says which etcd: Embedded, or Endpoints of a cluster.
type Config struct {
	Embedded  *Embedded
	Endpoints []string // https://host:port; http is for loopback only
	TLS       *tls.Config
	Username  string
	Password  string
	Logger    *slog.Logger // nil discards
}

// Embedded is a single-member server inside this process.
type Embedded struct {
	Dir  string // its data and its socket; made, and closed to other users
	Name string // of the member; "postern" where empty
}

// Store is a store.Store on etcd.
type Store struct {
	client *clientv3.Client
	server *server // nil for an external cluster
	logger *slog.Logger
	zap    core
	close  sync.Once

	mu    sync.Mutex
	asked time.Time // when the server was asked how far the watches are
}

var _ store.Store = (*Store)(nil)

// Open starts the embedded server, or dials the cluster, and waits until it answers a
// linearizable read or ctx is done. Close releases both.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if (cfg.Embedded == nil) == (len(cfg.Endpoints) == 0) {
		return nil, errors.New("etcd: exactly one of embedded and endpoints must be set")
	}
	s := &Store{logger: cfg.Logger, zap: newCore(cfg.Logger)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	lg := zap.New(s.zap)
	if cfg.Embedded != nil {
		if s.server, err = start(ctx, *cfg.Embedded, lg); err != nil {
			return nil, fmt.Errorf("etcd: start the embedded server: %w", err)
		}
		cfg.Endpoints = []string{s.server.endpoint}
	} else if err = checkEndpoints(cfg); err != nil {
		return nil, err
	}
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints:            cfg.Endpoints,
		TLS:                  cfg.TLS,
		Username:             cfg.Username,
		Password:             cfg.Password,
		DialTimeout:          dialWait,
		DialKeepAliveTime:    keepalive,
		DialKeepAliveTimeout: dialWait,
		Logger:               lg,
	})
	if err != nil {
		return nil, fmt.Errorf("etcd: dial: %w", err)
	}
	if err = s.Ping(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// checkEndpoints refuses to send policy, or a password, in the clear over a network.
func checkEndpoints(cfg Config) error {
	for _, e := range cfg.Endpoints {
		switch {
		case strings.HasPrefix(e, "https://"), strings.HasPrefix(e, "unix://"):
		case strings.HasPrefix(e, "http://127.0.0.1:"), strings.HasPrefix(e, "http://[::1]:"), strings.HasPrefix(e, "http://localhost:"):
		default:
			return fmt.Errorf("etcd: endpoint %q must begin with https:// (http:// is for loopback only)", e)
		}
	}
	return nil
}

// Close ends every watch and the embedded server. Only the first call does anything.
func (s *Store) Close() (err error) {
	s.close.Do(func() {
		s.zap.mute.Store(true)
		if s.client != nil {
			err = s.client.Close()
			if errors.Is(err, context.Canceled) {
				err = nil // that is how the client says that it was open
			}
		}
		if s.server != nil {
			s.server.close()
		}
	})
	return err
}

func path(k store.Key) string { return prefix + k.Kind + "/" + k.Name }

func keyOf(p []byte) (store.Key, bool) {
	kind, name, ok := strings.Cut(strings.TrimPrefix(string(p), prefix), "/")
	return store.Key{Kind: kind, Name: name}, ok
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, k store.Key) (store.Entry, error) {
	r, err := s.client.Get(ctx, path(k))
	if err != nil {
		return store.Entry{}, fmt.Errorf("etcd: read %s: %w", k, err)
	}
	if len(r.Kvs) == 0 {
		return store.Entry{}, fmt.Errorf("%s: %w", k, store.ErrNotFound)
	}
	return store.Entry{Key: k, Value: r.Kvs[0].Value, Revision: r.Kvs[0].ModRevision}, nil
}

// GetAll implements store.Store.
func (s *Store) GetAll(ctx context.Context, keys ...store.Key) ([]store.Entry, error) {
	if len(keys) == 0 || len(keys) > store.MaxOps {
		return nil, fmt.Errorf("etcd: read %d keys at once: want 1 to %d", len(keys), store.MaxOps)
	}
	looks := make([]clientv3.Op, len(keys))
	for i, k := range keys {
		looks[i] = clientv3.OpGet(path(k))
	}
	r, err := s.client.Txn(ctx).Then(looks...).Commit()
	if err != nil {
		return nil, fmt.Errorf("etcd: read %s and others: %w", keys[0], err)
	}
	var entries []store.Entry
	for i, k := range keys {
		for _, kv := range r.Responses[i].GetResponseRange().Kvs {
			entries = append(entries, store.Entry{Key: k, Value: kv.Value, Revision: kv.ModRevision})
		}
	}
	return entries, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, kind, after string, limit int) ([]store.Entry, int64, error) {
	var entries []store.Entry
	var revision int64
	begin, end := path(store.Key{Kind: kind}), clientv3.GetPrefixRangeEnd(path(store.Key{Kind: kind}))
	if after != "" {
		begin += after + "\x00"
	}
	for {
		n := pageSize
		if limit > 0 {
			n = min(n, limit-len(entries))
		}
		// The first page fixes the revision; the others read the past, which needs no quorum
		// to be exact.
		r, err := s.client.Get(ctx, begin, clientv3.WithRange(end), clientv3.WithLimit(int64(n)), clientv3.WithRev(revision))
		if errors.Is(err, rpctypes.ErrCompacted) {
			return nil, 0, fmt.Errorf("etcd: list %s: %w", kind, store.ErrCompacted)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("etcd: list %s: %w", kind, err)
		}
		if revision == 0 {
			revision = r.Header.Revision
		}
		for _, kv := range r.Kvs {
			if k, ok := keyOf(kv.Key); ok {
				entries = append(entries, store.Entry{Key: k, Value: kv.Value, Revision: kv.ModRevision})
			}
		}
		if !r.More || (limit > 0 && len(entries) >= limit) {
			return entries, revision, nil
		}
		begin = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	var conditions []clientv3.Cmp
	var changes, looks []clientv3.Op
	var asked []store.Op
	for _, o := range ops {
		p := path(o.Key)
		if o.If != store.AnyRevision {
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(p), "=", o.If))
			looks = append(looks, clientv3.OpGet(p, clientv3.WithKeysOnly()))
			asked = append(asked, o)
		}
		switch {
		case o.Check:
		case o.Delete:
			changes = append(changes, clientv3.OpDelete(p))
		default:
			changes = append(changes, clientv3.OpPut(p, string(o.Value)))
		}
	}
	r, err := s.client.Txn(ctx).If(conditions...).Then(changes...).Else(looks...).Commit()
	if err != nil {
		return 0, fmt.Errorf("etcd: commit: %w", err)
	}
	if r.Succeeded {
		return r.Header.Revision, nil
	}
	for i, o := range asked {
		var have int64
		if kvs := r.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			have = kvs[0].ModRevision
		}
		if have != o.If {
			return 0, &store.ConflictError{Key: o.Key, Want: o.If, Have: have}
		}
	}
	return 0, errors.New("etcd: commit: refused without a reason")
}

// Epoch implements store.Store.
func (s *Store) Epoch(ctx context.Context) (string, error) {
	k := store.Key{Kind: store.KindEpoch, Name: epochName}
	for {
		e, err := s.Get(ctx, k)
		if err == nil {
			return string(e.Value), nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return "", err
		}
		epoch, err := s.putEpoch(ctx, 0)
		if store.IsConflict(err) {
			continue // another replica was first
		}
		return epoch, err
	}
}

// NewEpoch implements store.Store.
func (s *Store) NewEpoch(ctx context.Context) (string, error) {
	return s.putEpoch(ctx, store.AnyRevision)
}

func (s *Store) putEpoch(ctx context.Context, revision int64) (string, error) {
	epoch := rand.Text()[:epochBytes]
	_, err := s.Commit(ctx, store.Op{
		Key:   store.Key{Kind: store.KindEpoch, Name: epochName},
		Value: []byte(epoch),
		If:    revision,
	})
	if err != nil {
		return "", err
	}
	return epoch, nil
}

// Ping implements store.Store.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.revision(ctx); err != nil {
		return fmt.Errorf("etcd: no answer: %w", err)
	}
	return nil
}

// revision is that of the whole store, by a linearizable read.
func (s *Store) revision(ctx context.Context) (int64, error) {
	r, err := s.client.Get(ctx, prefix, clientv3.WithKeysOnly())
	if err != nil {
		return 0, err
	}
	return r.Header.Revision, nil
}
