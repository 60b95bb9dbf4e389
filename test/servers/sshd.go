package servers

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// An SSHD is a running OpenSSH server. Its one account is whoever runs the tests.
type SSHD struct {
	Host    string
	Port    int
	User    string
	HostKey string // as in an authorized_keys file
	UserKey []byte // PEM, of the key that may log in
	Dir     string // a folder of its own, for files
	proc    *process
}

const sshdStartTime = 5 * time.Minute // a first start may install it

// SSH starts a server that ends with the test; config are further lines of its
// configuration, in which ${DIR} stands for its folder.
func SSH(t testing.TB, config ...string) *SSHD {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), sshdStartTime)
	defer cancel()
	s, err := StartSSH(ctx, folder(t, "sshd"), logTo(t), config...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// StartSSH starts a server with its state in dir; the caller stops it. What dir holds
// already, such as keys and the port, is kept.
func StartSSH(ctx context.Context, dir string, log func(string), config ...string) (*SSHD, error) {
	bin, err := findSSHD(ctx, log)
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	s := &SSHD{Host: "127.0.0.1", User: me.Username, Dir: filepath.Join(dir, "files")}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	host, err := keptKey(filepath.Join(dir, "host"))
	if err != nil {
		return nil, err
	}
	login, err := keptKey(filepath.Join(dir, "login"))
	if err != nil {
		return nil, err
	}
	s.HostKey, s.UserKey = host.public, login.private
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // sshd insists
			return nil, err
		}
	}
	for try := 1; ; try++ {
		if s.Port, err = keptPort(filepath.Join(dir, "port")); err != nil {
			return nil, err
		}
		if err = s.start(ctx, bin, dir, login.public, config); err == nil {
			return s, nil
		}
		if !portClash(err) || try == portTries {
			return nil, fmt.Errorf("start sshd: %w", err)
		}
		_ = os.Remove(filepath.Join(dir, "port"))
	}
}

func (s *SSHD) start(ctx context.Context, bin, dir, authorized string, further []string) error {
	config := fmt.Sprintf(`Port %d
ListenAddress %s
HostKey %s/host
AuthorizedKeysFile %[3]s/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin yes
AcceptEnv LANG POSTERN_*
Subsystem sftp internal-sftp
LogLevel VERBOSE
%[4]s
`, s.Port, s.Host, dir, strings.ReplaceAll(strings.Join(further, "\n"), "${DIR}", s.Dir))
	for name, text := range map[string]string{"sshd_config": config, "authorized_keys": authorized + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	var err error
	if s.proc, err = start("sshd", exec.Command(bin, "-D", "-e", "-f", filepath.Join(dir, "sshd_config")), filepath.Join(dir, "sshd.log")); err != nil {
		return err
	}
	err = waitReady(ctx, s.proc, func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(s.Host, strconv.Itoa(s.Port)))
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err == nil && !strings.HasPrefix(line, "SSH-2.0-") {
			err = fmt.Errorf("it greets with %q", line)
		}
		return err
	})
	if err != nil {
		s.proc.kill()
	}
	return err
}

// Stop ends the server and all its sessions.
func (s *SSHD) Stop() { s.proc.stop(syscall.SIGTERM) }

// Log is the end of what the server said.
func (s *SSHD) Log() string { return s.proc.tail() }

type keyPair struct {
	private []byte
	public  string
}

// keptKey reads a key of OpenSSH's form, or makes one.
func keptKey(file string) (keyPair, error) {
	private, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		_, key, gerr := ed25519.GenerateKey(nil)
		if gerr != nil {
			return keyPair{}, gerr
		}
		block, gerr := ssh.MarshalPrivateKey(key, "")
		if gerr != nil {
			return keyPair{}, gerr
		}
		private = pem.EncodeToMemory(block)
		err = os.WriteFile(file, private, 0o600)
	}
	if err != nil {
		return keyPair{}, err
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return keyPair{}, err
	}
	return keyPair{private, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))}, nil
}

// findSSHD finds sshd, or installs it where that can be done.
func findSSHD(ctx context.Context, log func(string)) (string, error) {
	find := func() string { return onPath("sshd", "/usr/sbin", "/usr/local/sbin") }
	if bin := find(); bin != "" {
		return bin, nil
	}
	if os.Geteuid() != 0 || onPath("apt-get") == "" {
		return "", fmt.Errorf("no sshd: install the package openssh-server")
	}
	err := withApt(ctx, log, "OpenSSH", func() bool { return find() != "" }, func(install func(...string) error) error { return install("openssh-server") })
	if err != nil {
		return "", err
	}
	if bin := find(); bin != "" {
		return bin, nil
	}
	return "", fmt.Errorf("installing openssh-server did not bring an sshd")
}
