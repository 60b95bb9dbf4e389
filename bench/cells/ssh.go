package cells

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/bench/account"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/targets"
	"github.com/posterngate/postern/test/servers"
)

// jump is OpenSSH's ProxyJump: the same two hops, of which the middle one sees nothing.
const jump = "jump"

// taskSSH is what the measured sessions take.
const taskSSH = "bench-ssh"

// forbiddenSSH is what the task does not permit.
const forbiddenSSH = "id"

const (
	sshBytes  = 32 << 20 // of a round, each way
	sshEchoes = 500      // of a round
)

func sshCells() []Cell {
	return []Cell{
		{ID: "S1", Title: "SSH, 32 MB each way through stock ssh, aes128-gcm", run: sshBulk},
		{ID: "S2", Title: "SSH, one character and back, and a whole session for one command", run: sshSmall},
	}
}

// hosts are an sshd, one to jump from, and the clients' options by target.
type hosts struct {
	target  *servers.SSHD
	file    string // of random bytes at the host
	options map[string][]string
	user    map[string]string
	stops   []func()
}

func (h *hosts) stop() {
	for _, f := range h.stops {
		f()
	}
}

const sshWorld = `
apiVersion: postern/v1
kind: Secret
metadata: {name: bench-host}
spec: {data: {username: "%[1]s", privateKey: %[2]q}}
---
apiVersion: postern/v1
kind: Resource
metadata: {name: bench-host}
spec:
  protocol: ssh
  endpoint: {host: 127.0.0.1, port: %[3]d, ssh: {hostKeys: ["%[4]s"]}}
  credential: {sealed: bench-host}
---
apiVersion: postern/v1
kind: Task
metadata: {name: bench-ssh}
spec:
  purpose: to be measured
  resources: {names: [bench-host]}
  permit:
    - {channel: exec, argv: [/bin/echo, "*"]}
    - {channel: exec, argv: [/bin/cat]}
    - {channel: exec, argv: [/bin/cat, "%[5]s"]}
    - {channel: exec, argv: [/bin/true]}
  duration: 8h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: bench-ssh}
spec: {subjects: [{group: analysts}], tasks: [bench-ssh]}
`

// hosts starts what SSH is measured with.
func (e *Env) hosts(ctx context.Context, out *result.Cell) (_ *hosts, err error) {
	h := &hosts{options: map[string][]string{}, user: map[string]string{}}
	defer func() {
		if err != nil {
			h.stop()
		}
	}()
	dir, err := os.MkdirTemp(e.Dir, "ssh-")
	if err != nil {
		return nil, err
	}
	var both [2]*servers.SSHD
	for i := range both {
		if both[i], err = servers.StartSSH(ctx, filepath.Join(dir, fmt.Sprint("sshd-", i)), func(s string) { fmt.Fprintln(e.Log, s) }, "MaxStartups 100"); err != nil {
			return nil, err
		}
		h.stops = append(h.stops, both[i].Stop)
	}
	h.target, h.file = both[0], filepath.Join(both[0].Dir, "random")
	random := make([]byte, sshBytes)
	_, _ = rand.Read(random) // never fails
	if err := os.WriteFile(h.file, random, 0o600); err != nil {
		return nil, err
	}
	for i, s := range both {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("key-", i)), s.UserKey, 0o600); err != nil {
			return nil, err
		}
	}
	certs := ""
	err = e.House.Try(func(t testing.TB) {
		certs = filepath.Join(e.House.Home(t, "alice"), "bench-ssh")
		e.House.Apply(t, fmt.Sprintf(sshWorld, h.target.User, h.target.UserKey, h.target.Port, h.target.HostKey, h.file))
		e.House.Must(t, "alice", "grant", taskSSH, "--ssh", certs)
	})
	if err != nil {
		return nil, err
	}
	common := []string{"-F", "none", "-T", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-c", "aes128-gcm@openssh.com"}
	at := func(key string, port int) []string {
		return append(slices.Clone(common), "-i", key, "-p", fmt.Sprint(port))
	}
	direct := at(filepath.Join(dir, "key-0"), h.target.Port)
	middle := append([]string{"ssh"}, append(at(filepath.Join(dir, "key-1"), both[1].Port), "-W", "%h:%p", both[1].User+"@127.0.0.1")...)
	_, port, _ := strings.Cut(e.House.Node.SSH, ":")
	h.options[targets.Direct], h.user[targets.Direct] = direct, h.target.User
	h.options[jump], h.user[jump] = append(slices.Clone(direct), "-o", "ProxyCommand="+strings.Join(middle, " ")), h.target.User
	h.options[targets.Postern] = append(slices.Clone(common), "-i", filepath.Join(certs, taskSSH), "-p", port)
	h.user[targets.Postern] = taskSSH + ".bench-host"
	return h, e.proveSSH(ctx, h, out)
}

func (h *hosts) cmd(ctx context.Context, target, line string) *exec.Cmd {
	return exec.CommandContext(ctx, "ssh", append(slices.Clone(h.options[target]), h.user[target]+"@127.0.0.1", line)...)
}

// proveSSH shows that the node judges, and that all targets do the same.
func (e *Env) proveSSH(ctx context.Context, h *hosts, out *result.Cell) error {
	for _, target := range []string{targets.Direct, jump, targets.Postern} {
		b, err := h.cmd(ctx, target, "/bin/echo same").Output()
		if err != nil || string(b) != "same\n" {
			return fmt.Errorf("proof of %s: it says %q: %w", target, b, err)
		}
		e.countSSH(target)
	}
	err := h.cmd(ctx, targets.Postern, forbiddenSSH).Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 126 {
		return fmt.Errorf("proof of %s: what is not permitted ran: %w", targets.Postern, err)
	}
	out.Notes = append(out.Notes, "stock ssh, aes128-gcm; the node judges each command and records what it says; jump is ssh -W through a second sshd")
	return nil
}

func (e *Env) countSSH(target string) {
	if target == targets.Postern {
		e.sent[taskSSH]++
	}
}

// sshJobs are the same work on every target.
func (e *Env) sshJobs(workload string, run func(ctx context.Context, target string) (map[string]float64, error)) []job {
	var jobs []job
	for _, target := range []string{targets.Direct, jump, targets.Postern} {
		jobs = append(jobs, job{workload: workload, target: target, run: func(ctx context.Context) (map[string]float64, error) {
			node := account.Total(e.House.Node.PID())
			values, err := run(ctx, target)
			e.countSSH(target)
			if err == nil && target == targets.Postern {
				values["gateway_ms"] = float64(account.Total(e.House.Node.PID())-node) / float64(time.Millisecond)
			}
			return values, err
		}})
	}
	return jobs
}

func sshBulk(ctx context.Context, e *Env, out *result.Cell) error {
	h, err := e.hosts(ctx, out)
	if err != nil {
		return err
	}
	defer h.stop()
	jobs := e.sshJobs("down", func(ctx context.Context, target string) (map[string]float64, error) {
		return h.talk(ctx, target, "/bin/echo ready && /bin/cat "+h.file, func(_ io.WriteCloser, from *bufio.Reader) (map[string]float64, error) {
			began := time.Now()
			n, err := io.Copy(io.Discard, from)
			return rate(n, began), err
		})
	})
	data := make([]byte, sshBytes)
	_, _ = rand.Read(data) // never fails
	jobs = append(jobs, e.sshJobs("up", func(ctx context.Context, target string) (map[string]float64, error) {
		return h.talk(ctx, target, "/bin/echo ready && /bin/cat >/dev/null && /bin/echo done", func(to io.WriteCloser, from *bufio.Reader) (map[string]float64, error) {
			began := time.Now()
			n, err := to.Write(data)
			err = errors.Join(err, to.Close())
			if said, rerr := from.ReadString('\n'); said != "done\n" {
				err = errors.Join(err, fmt.Errorf("the host says %q: %w", said, rerr))
			}
			return rate(int64(n), began), err
		})
	})...)
	return e.interleave(ctx, out, jobs)
}

func rate(n int64, began time.Time) map[string]float64 {
	return map[string]float64{"mb_s": float64(n) / 1e6 / time.Since(began).Seconds(), "mb": float64(n) / 1e6}
}

// talk runs a command that says "ready" first, and then what fn does with it.
func (h *hosts) talk(ctx context.Context, target, line string, fn func(io.WriteCloser, *bufio.Reader) (map[string]float64, error)) (map[string]float64, error) {
	cmd := h.cmd(ctx, target, line)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	from := bufio.NewReaderSize(out, 64<<10)
	said, err := from.ReadString('\n')
	if err == nil && said != "ready\n" {
		err = fmt.Errorf("it says %q", said)
	}
	var values map[string]float64
	if err == nil {
		values, err = fn(in, from)
	}
	_ = in.Close()
	return values, errors.Join(err, cmd.Wait())
}

func sshSmall(ctx context.Context, e *Env, out *result.Cell) error {
	h, err := e.hosts(ctx, out)
	if err != nil {
		return err
	}
	defer h.stop()
	jobs := e.sshJobs("echo", func(ctx context.Context, target string) (map[string]float64, error) {
		return h.talk(ctx, target, "/bin/echo ready && /bin/cat", func(to io.WriteCloser, from *bufio.Reader) (map[string]float64, error) {
			took := make([]float64, sshEchoes)
			for i := range took {
				began := time.Now()
				if _, err := to.Write([]byte("x\n")); err != nil {
					return nil, err
				}
				if said, err := from.ReadString('\n'); said != "x\n" {
					return nil, fmt.Errorf("it says %q: %w", said, err)
				}
				took[i] = float64(time.Since(began)) / float64(time.Microsecond)
			}
			slices.Sort(took)
			return map[string]float64{"p50_us": took[len(took)/2], "p99_us": took[len(took)*99/100]}, nil
		})
	})
	jobs = append(jobs, e.sshJobs("set-up", func(ctx context.Context, target string) (map[string]float64, error) {
		began := time.Now()
		err := h.cmd(ctx, target, "/bin/true").Run()
		return map[string]float64{"setup_ms": float64(time.Since(began)) / float64(time.Millisecond)}, err
	})...)
	return e.interleave(ctx, out, jobs)
}
