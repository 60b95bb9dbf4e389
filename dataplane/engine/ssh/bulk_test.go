package ssh

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
)

// stock is OpenSSH's client at an engine, both in processes of their own but the engine. It
// shows nobody what comes on stdout but where that is asked for: to read it is work too.
func stock(b *testing.B, line string, stdout bool) (to io.WriteCloser, from *bufio.Reader, wait func() error) {
	b.Helper()
	signer := newSigner(b)
	door := enginetest.NewDoor(b, target(b), credential(b))
	addr := enginetest.Serve(b, New(Config{HostKeys: func() []ssh.Signer { return []ssh.Signer{signer} }, Logger: slog.New(slog.DiscardHandler)}), door)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		b.Fatal(err)
	}
	ask := filepath.Join(b.TempDir(), "ask")
	if err := os.WriteFile(ask, []byte("#!/bin/sh\necho "+enginetest.Token+"\n"), 0o700); err != nil { //nolint:gosec // it is run
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), "ssh", "-F", "none", "-T", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		"-o", "PreferredAuthentications=password", "-c", "aes128-gcm@openssh.com", "-p", port, "t.target@"+host, line)
	cmd.Env = append(os.Environ(), "SSH_ASKPASS="+ask, "SSH_ASKPASS_REQUIRE=force")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	pipe := cmd.StderrPipe
	if stdout {
		pipe, cmd.Stderr = cmd.StdoutPipe, os.Stderr
	}
	out, err := pipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	from = bufio.NewReaderSize(out, 64<<10)
	if said, err := from.ReadString('\n'); said != "ready\n" {
		b.Fatalf("it says %q: %v", said, err)
	}
	return in, from, cmd.Wait
}

// BenchmarkCarry measures what the engine needs for a MB that it carries each way; what
// records it is a script that counts.
func BenchmarkCarry(b *testing.B) {
	const size = 1 << 20
	b.Run("down", func(b *testing.B) {
		_, from, wait := stock(b, fmt.Sprintf("echo ready >&2; head -c %d /dev/zero; echo done >&2", b.N*size), false)
		measure(b, size, func() {
			if said, err := from.ReadString('\n'); said != "done\n" {
				b.Fatalf("it says %q: %v", said, err)
			}
		})
		if err := wait(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("up", func(b *testing.B) {
		to, from, wait := stock(b, "echo ready; cat >/dev/null; echo done", true)
		block := make([]byte, size)
		measure(b, size, func() {
			for range b.N {
				if _, err := to.Write(block); err != nil {
					b.Fatal(err)
				}
			}
			if err := to.Close(); err != nil {
				b.Fatal(err)
			}
			if said, err := from.ReadString('\n'); said != "done\n" {
				b.Fatalf("it says %q: %v", said, err)
			}
		})
		if err := wait(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("echo", func(b *testing.B) {
		to, from, wait := stock(b, "echo ready; exec cat", true)
		took := make([]float64, b.N)
		measure(b, 0, func() {
			for i := range took {
				began := time.Now()
				if _, err := io.WriteString(to, "x\n"); err != nil {
					b.Fatal(err)
				}
				if said, err := from.ReadString('\n'); said != "x\n" {
					b.Fatalf("it says %q: %v", said, err)
				}
				took[i] = float64(time.Since(began)) / float64(time.Microsecond)
			}
		})
		slices.Sort(took)
		b.ReportMetric(took[len(took)/2], "p50-us")
		if err := to.Close(); err != nil {
			b.Fatal(err)
		}
		if err := wait(); err != nil {
			b.Fatal(err)
		}
	})
}

// measure reports the processor time of this process alone.
func measure(b *testing.B, size int, work func()) {
	b.Helper()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	work()
	cpu := float64(cpuTime(b) - before)
	b.StopTimer()
	if size > 0 {
		b.ReportMetric(cpu/1e6/(float64(b.N)*float64(size)/1e6), "cpu-ms/MB")
	} else {
		b.ReportMetric(cpu/1e3/float64(b.N), "cpu-us/op")
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
