// Package config is the reference of postern-node's configuration: one struct, whose
// comments are the manual.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/posterngate/postern/pkg/conf"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/telemetry"
)

// Config is everything that a node can be told. Unknown keys are refused.
type Config struct {
	// Name is the node's name: a DNS label of at most 30 characters. It must be the
	// one for which the join token was made.
	Name string `json:"name"`

	// DataDir holds the node's identity and its spool, and nothing else. Wiping a
	// drained node's DataDir costs a new enrolment.
	DataDir string `json:"dataDir"`

	// ControlPlane lists the control plane's node addresses, host:port. The first that
	// answers is used.
	ControlPlane []string `json:"controlPlane"`

	// JoinTokenFile holds the one-time join token; it is read on the first start only.
	JoinTokenFile string `json:"joinTokenFile"`

	// Listeners says where clients connect, by protocol.
	Listeners map[postern.Protocol]Listener `json:"listeners"`

	// Spool bounds the records that are not stored yet.
	Spool Spool `json:"spool"`

	// Debug is where /livez, /readyz and /metrics are served; a loopback address, or
	// unix:PATH. Empty serves none.
	Debug string `json:"debug"`

	// Drain is how long live sessions may go on after SIGTERM. The default is 30s;
	// 1ms ends them at once.
	Drain conf.Duration `json:"drain"`

	// Loops is how many event loops carry sessions of PostgreSQL, and of HTTP/1.1 while they
	// need nothing but their client and the resource; the default is half of the processors,
	// and negative none: each session then has goroutines that read.
	Loops int `json:"loops"`

	// Telemetry says where logs, traces and metrics go.
	Telemetry telemetry.Config `json:"telemetry"`
}

// Listener is one socket of one protocol.
type Listener struct {
	// Addr is host:port; port 0 takes a free one.
	Addr string `json:"addr"`
	// Public is the address that clients are told, host:port; the default is Addr, which is
	// none that they can reach where it names no host, or 0.0.0.0. The listener's certificate
	// is for this host.
	Public string `json:"public"`
	// AllowPlaintext lets clients speak without TLS. Only for loopback addresses.
	AllowPlaintext bool `json:"allowPlaintext"`
	// MaxConns bounds the connections; the default is 20000.
	MaxConns conf.Count `json:"maxConns"`
}

// Spool bounds the records that are not stored yet.
type Spool struct {
	// MaxBytes on disk; past it statements are denied. The default is 1 GiB.
	MaxBytes conf.Count `json:"maxBytes"`
	// MaxUnshipped is the age of the oldest record that is not stored yet, past which
	// statements are denied. The default is 5m.
	MaxUnshipped conf.Duration `json:"maxUnshipped"`
}

// Check says what is missing or wrong, and fills in defaults.
func (c *Config) Check() error {
	if c.Name == "" {
		return errors.New("name is missing")
	}
	if err := object.CheckName(c.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if c.DataDir == "" {
		return errors.New("dataDir is missing")
	}
	if len(c.ControlPlane) == 0 {
		return errors.New("controlPlane is missing: the addresses of the control plane for nodes")
	}
	for i, addr := range c.ControlPlane {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("controlPlane[%d]: %w", i, err)
		}
	}
	if err := errors.Join(telemetry.CheckDebug(c.Debug), c.Telemetry.Check()); err != nil {
		return err
	}
	if len(c.Listeners) == 0 {
		return errors.New("listeners is missing: at least one protocol")
	}
	for p, l := range c.Listeners {
		host, _, err := net.SplitHostPort(l.Addr)
		if err != nil {
			return fmt.Errorf("listeners.%s.addr: %w", p, err)
		}
		if l.AllowPlaintext && !conf.Loopback(host) {
			return fmt.Errorf("listeners.%s.allowPlaintext: only for a loopback address, and %s is none", p, host)
		}
		if l.Public != "" {
			if host, _, err = net.SplitHostPort(l.Public); err != nil {
				return fmt.Errorf("listeners.%s.public: %w", p, err)
			}
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() { // the control plane would certify no such
			return fmt.Errorf("listeners.%s.public: say under which HOST:PORT clients reach this listener; %q is none", p, cmp.Or(l.Public, l.Addr))
		}
	}
	c.Spool.MaxBytes = cmp.Or(c.Spool.MaxBytes, 1<<30)
	c.Spool.MaxUnshipped = conf.Duration(c.Spool.MaxUnshipped.Or(5 * time.Minute))
	c.Drain = conf.Duration(c.Drain.Or(30 * time.Second))
	return nil
}
