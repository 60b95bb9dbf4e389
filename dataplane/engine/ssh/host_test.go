package ssh

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/test/servers"
	"github.com/posterngate/postern/test/wait"
)

// TestHostThatDoesNotWait: the host is logged in to before anything is asked of it, and where it
// goes because of that, whoever asks something later has a connection all the same.
func TestHostThatDoesNotWait(t *testing.T) {
	far := servers.SSH(t, "UnusedConnectionTimeout 5") // which the one that is made anew must not meet
	said := func(text string) func() bool { return func() bool { return strings.Contains(far.Log(), text) } }
	h := newHouse(t)
	terms := target(t)
	terms.Port, terms.SSH.HostKeys = far.Port, []string{far.HostKey}
	h.door = enginetest.NewDoor(t, terms, func(engine.Purpose) engine.Credential {
		return engine.Credential{Account: far.User, PrivateKey: secret.New(bytes.Clone(far.UserKey))}
	})
	h.serve(t)
	c := h.connect(t)
	wait.For(t, "the node is logged in", said("Accepted publickey"))
	wait.For(t, "the host has gone", said("terminating inactive connection"))
	if out, said, err := c.run(testContext(t), "echo here"); string(out) != "here\n" {
		t.Fatalf("%q, %q, %v", out, said, err)
	}
}

// TestNoSession: a host that has enough sessions is told from one that is gone.
func TestNoSession(t *testing.T) {
	far := servers.SSH(t, "MaxSessions 1")
	key, err := ssh.ParsePrivateKey(far.UserKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", net.JoinHostPort(far.Host, fmt.Sprint(far.Port)), &ssh.ClientConfig{
		User: far.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // it is ours
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.NewSession(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the host takes no more sessions", "the connection to the host was lost"} {
		_, err := c.NewSession()
		if err == nil {
			t.Fatal("a session was opened")
		}
		if got := noSession(err).Reason; got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
		_ = c.Close()
	}
}
