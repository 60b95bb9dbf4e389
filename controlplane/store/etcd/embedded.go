package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

const (
	compactionPeriod = "5m"
	maxRequestBytes  = 2 << 20
	quotaBytes       = 8 << 30
	maxSocketPath    = 100 // of the 108 bytes of a sun_path
	// catchUp is how many changes stay in memory for members that lag behind, which one member
	// has not.
	catchUp = 10
)

// server is the embedded etcd and what it holds of the file system.
type server struct {
	etcd     *embed.Etcd
	lock     *os.File
	scratch  string // a folder to remove, or empty
	endpoint string
}

func start(ctx context.Context, cfg Embedded, lg *zap.Logger) (_ *server, err error) {
	s := &server{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil { // it may have been made by somebody else
		return nil, err
	}
	if s.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "etcd.sock")
	if len(socket) > maxSocketPath {
		if s.scratch, err = os.MkdirTemp("", "postern-etcd-"); err != nil { // mode 0700
			return nil, err
		}
		socket = filepath.Join(s.scratch, "etcd.sock")
	}
	s.endpoint = "unix://" + socket

	if s.etcd, err = embed.StartEtcd(embedConfig(cfg.Name, dir, socket, lg)); err != nil {
		return nil, err
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
		return s, nil
	case err := <-s.etcd.Err():
		return nil, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func embedConfig(name, dir, socket string, lg *zap.Logger) *embed.Config {
	if name == "" {
		name = "postern"
	}
	c := embed.NewConfig()
	c.Name = name
	c.Dir = filepath.Join(dir, "data")
	at := url.URL{Scheme: "unix", Path: socket}
	c.ListenClientUrls = []url.URL{at}
	c.AdvertiseClientUrls = []url.URL{at}
	// One member has no peers: no listener, and an address that leads nowhere.
	c.ListenPeerUrls = nil
	c.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	c.InitialCluster = c.InitialClusterFromName(name)
	// It elects itself, so that nothing is won by a long wait for others; more ticks than the
	// five of which an election must be would only wake the process.
	c.TickMs, c.ElectionMs = 50, 250
	c.AutoCompactionMode = embed.CompactorModePeriodic
	c.AutoCompactionRetention = compactionPeriod
	c.MaxRequestBytes = maxRequestBytes
	c.QuotaBackendBytes = quotaBytes
	c.SnapshotCatchUpEntries = catchUp
	c.EnableGRPCGateway = false
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(lg)
	return c
}

// lockDir keeps a second process out: etcd itself would wait for ever, after it had
// taken the socket away from the first.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		closed := f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another process", dir)
		}
		return nil, errors.Join(err, closed)
	}
	return f, nil
}

// close stops the server and waits for it.
func (s *server) close() {
	if s.etcd != nil {
		s.etcd.Close()
	}
	if s.scratch != "" {
		_ = os.RemoveAll(s.scratch) // only a socket was in it
	}
	if s.lock != nil {
		_ = s.lock.Close() // releases the lock
	}
}
