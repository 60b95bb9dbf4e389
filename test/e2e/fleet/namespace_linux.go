package fleet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/posterngate/postern/pkg/run"
)

// A Namespace is a network of its own that a wire joins to the test's: what is 127.0.0.1
// here is that there too, and what is there is its Host here. Nothing leaves the machine,
// and all of it goes with the test, however that ends. It needs root and iproute2.
type Namespace struct {
	Host string // the loopback address of who listens there

	net *os.File
}

// NewNamespace makes one; n, from 1 to 250, tells it from the others of this machine.
func NewNamespace(t testing.TB, n int) *Namespace {
	t.Helper()
	s := &Namespace{Host: fmt.Sprintf("127.77.%d.1", n)}
	if err := s.make(t, n); err != nil {
		t.Fatalf("make a network namespace, which needs root and the Debian package iproute2: %v", err)
	}
	return s
}

func (s *Namespace) make(t testing.TB, n int) error {
	err := apart(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			s.net, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	})
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = s.net.Close() })
	// One link address for both ends, since nobody answers who has an address of loopback.
	here, there, link := fmt.Sprintf("postern-%d", n), "postern-hub", fmt.Sprintf("02:70:6f:73:74:%02x", n)
	if err := ip("link add %s address %s type veth peer name %s address %s netns /proc/%d/fd/%d", here, link, there, link, os.Getpid(), s.net.Fd()); err != nil {
		return err
	}
	t.Cleanup(func() { _ = ip("link del %s", here) })
	err = apart(func() error {
		if err := s.enter(); err != nil {
			return err
		}
		if err := ip("link set lo up"); err != nil {
			return err
		}
		if err := ip("addr flush dev lo"); err != nil { // what is at 127.0.0.1 is here
			return err
		}
		if err := ip("addr add %s/32 dev lo", s.Host); err != nil {
			return err
		}
		return lead(there, s.Host, "127.0.0.1")
	})
	if err != nil {
		return err
	}
	return lead(here, "127.0.0.1", s.Host)
}

// lead makes a device the way from one address of loopback to another.
func lead(dev, from, to string) error {
	if err := ip("link set %s arp off up", dev); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+dev+"/route_localnet", []byte("1"), 0); err != nil {
		return err
	}
	return ip("route add %s/32 dev %s table local src %s", to, dev, from)
}

func ip(format string, args ...any) error {
	line := fmt.Sprintf(format, args...)
	out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", line, err, out)
	}
	return nil
}

// apart calls f on a thread that ends with it, whatever f makes of that.
func apart(f func() error) error {
	g := run.New(context.Background())
	g.Go("thread", func(context.Context) error {
		runtime.LockOSThread()
		return f()
	})
	return g.Wait()
}

// enter moves the calling thread there, for good; the goroutine must be locked to it.
func (s *Namespace) enter() error {
	if s == nil {
		return nil
	}
	return unix.Setns(int(s.net.Fd()), unix.CLONE_NEWNET)
}
