// Package daemon is what the mains of long-running programs have in common: flags, the
// configuration, telemetry, signals and exit codes.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/posterngate/postern/pkg/release"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/telemetry"
)

// shutdownWait is how long traces may take to be sent at the end.
const shutdownWait = 5 * time.Second

// A Program is one of them; C is its configuration. All but Usage is required.
type Program[C any] struct {
	Name  string // of the binary
	File  string // the configuration, where --config does not name another
	Usage string // stands before the flags in the help
	Load  func(file string) (C, error)
	// Telemetry says where a configuration sends it, and what this instance is called.
	Telemetry func(cfg C) (to telemetry.Config, instance string)
	// Garbage is how much of it there may be before it is collected, in percent of what
	// lives; 0 is what Go says, and GOGC wins.
	Garbage int
	// Serve works until ctx is done.
	Serve func(ctx context.Context, cfg C, tel *telemetry.T) error
	// Stop is how long Serve may take to return then. It is less than what service managers
	// wait before they kill: who hangs is to say where.
	Stop func(cfg C) time.Duration
}

// Main calls run with what the process was started with, and exits with its code. The
// context ends with SIGINT or SIGTERM.
func Main(run func(ctx context.Context, args []string, stdout, stderr io.Writer) int) {
	shareBuffers()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Run reads the flags, and serves unless they ask for something else. It returns the
// exit code: 0 ok, 1 failed, 2 wrong usage or configuration.
func (p *Program[C]) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	if p.Usage != "" {
		flags.Usage = func() {
			fmt.Fprint(stderr, p.Usage)
			flags.PrintDefaults()
		}
	}
	file := flags.String("config", p.File, "configuration file")
	check := flags.Bool("check-config", false, "check the configuration and exit")
	version := flags.Bool("version", false, "print the release and exit")
	if code, done := Parse(flags, args); done {
		return code
	}
	if *version {
		fmt.Fprintln(stdout, p.Name, release.Version)
		return 0
	}
	cfg, err := p.Load(*file)
	if err == nil && *check {
		fmt.Fprintln(stdout, "the configuration is good")
		return 0
	}
	var tel *telemetry.T
	if err == nil {
		to, instance := p.Telemetry(cfg)
		tel, err = telemetry.Setup(ctx, to, p.Name, instance, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", p.Name, err)
		return 2
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
		defer cancel()
		_ = tel.Shutdown(ctx) // nobody is left to be told
	}()
	slog.SetDefault(tel.Logger) // libraries know no other: their lines are to be like ours
	collector(p.Garbage)
	if err := p.serve(ctx, cfg, tel); err != nil {
		tel.Logger.Error("stopped after a failure", "error", err)
		return 1
	}
	return 0
}

// serve is Serve, and an error that says where it hangs if it does not return in time. The end
// of the process is then what ends it: this alone does not wait for what it has started.
func (p *Program[C]) serve(ctx context.Context, cfg C, tel *telemetry.T) error {
	g, ended := run.New(context.WithoutCancel(ctx)), make(chan struct{})
	g.Go("serve", func(context.Context) error {
		defer close(ended)
		return p.Serve(ctx, cfg, tel)
	})
	select {
	case <-ended:
		return g.Wait()
	case <-ctx.Done():
	}
	wait := p.Stop(cfg)
	late := time.NewTimer(wait)
	defer late.Stop()
	select {
	case <-ended:
		return g.Wait()
	case <-late.C:
	}
	var where strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&where, 1) // a Builder takes everything
	return fmt.Errorf("it did not stop within %s; what there still is: %s", wait, where.String())
}

// Parse reads flags. Once it is done the program is over, with that code: the help was
// asked for, or it was told what is wrong, also of words that are no flags.
func Parse(flags *flag.FlagSet, args []string) (code int, done bool) {
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0, true
	case err != nil:
		return 2, true
	case flags.NArg() > 0:
		fmt.Fprintf(flags.Output(), "%s: what is %q?\n", flags.Name(), flags.Arg(0))
		flags.Usage()
		return 2, true
	}
	return 0, false
}
