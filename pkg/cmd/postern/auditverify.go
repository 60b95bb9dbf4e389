package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/posterngate/postern/pkg/trail"
)

// offline is what the verification from files is told.
type offline struct {
	log           string
	keys, earlier []string
}

func (o *offline) flags(c *cobra.Command, log string) {
	f := c.Flags()
	f.StringVar(&o.log, log, "", "the folder of the audit log")
	f.StringArrayVar(&o.keys, "key", nil, "the public half of the log's key, or a file with it (audit.key.pub); again for\nkeys of before (audit.key.pub.old), by which earlier checkpoints may verify")
	f.StringArrayVar(&o.earlier, "earlier", nil, "a checkpoint that was kept from before, which the log must still contain; may be repeated")
}

// open opens the log, reads its key, and the earlier checkpoints.
func (o *offline) open() (_ *trail.Log, key string, earlier []trail.Checkpoint, err error) {
	if o.log == "" || len(o.keys) == 0 || slices.Contains(o.keys, "") {
		return nil, "", nil, usage("the folder of the audit log and --key, the public half of its key, are needed")
	}
	var keys []string
	for _, key := range o.keys {
		if text, err := os.ReadFile(key); err == nil {
			key = string(text)
		}
		keys = append(keys, strings.TrimSpace(key))
	}
	for _, name := range o.earlier {
		signed, err := os.ReadFile(name)
		if err != nil {
			return nil, "", nil, err
		}
		c, err := byAny(keys, signed)
		if err != nil {
			return nil, "", nil, fmt.Errorf("%s: %w", name, err)
		}
		earlier = append(earlier, c)
	}
	log, err := trail.Open(o.log)
	return log, keys[0], earlier, err
}

// byAny reads a checkpoint that one of the keys has signed. That of the log itself must be the
// newest key's: who has found one of before could write another log.
func byAny(keys []string, signed []byte) (c trail.Checkpoint, err error) {
	for _, key := range keys {
		if c, err = trail.ParseCheckpoint(signed, key); err == nil {
			return c, nil
		}
	}
	return c, err
}

func (a *app) auditVerifyCmd() *cobra.Command {
	var o offline
	c := &cobra.Command{
		Use: "verify", Short: "Prove, from files alone, that the audit log is what was written", Args: cobra.NoArgs,
		Long: "Computes the Merkle tree over all entries anew, and holds it against the checkpoint that the log's\n" +
			"key signed. Entries that were taken away together with newer checkpoints show against an earlier\n" +
			"one: keep copies of the file \"checkpoint\" elsewhere. Where the key was replaced since, give its\n" +
			"public half (audit.key.pub.old) as another --key, behind the one of now.",
		Example: "  postern audit verify --dir /var/lib/postern/audit --key audit.key.pub --earlier yesterday",
		RunE: func(*cobra.Command, []string) (err error) {
			log, key, earlier, err := o.open()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, log.Close()) }()
			got, err := log.Verify(key, earlier, nil)
			if err != nil {
				return err
			}
			return a.printValue(map[string]any{"entries": got.Size, "root": fmt.Sprintf("%x", got.Root)}, func(w io.Writer) {
				fmt.Fprintf(w, "%d entries; chain, tree and signature hold\nroot %x\n", got.Size, got.Root)
			})
		},
	}
	o.flags(c, "dir")
	return c
}

// verifyFiles verifies recordings in a folder against the audit log.
func (a *app) verifyFiles(o *offline, dir string, ids []string) (err error) {
	log, key, earlier, err := o.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	s, err := log.VerifyRecordings(key, earlier, root.FS(), ids...)
	if err != nil {
		return err
	}
	if err := a.printValue(s, func(w io.Writer) {
		for _, f := range s.Findings {
			fmt.Fprintf(w, "%s: %s\n", f.Session, f.Problem)
		}
		for _, r := range s.Open {
			fmt.Fprintf(w, "%s: no seal: %d chunks, events 1 to %d, of %s on task %s at node %s since %s\n", r.Session, r.Chunks, r.Last, r.Subject, r.Task, r.Node, r.Began.Format("2006-01-02 15:04:05"))
		}
		fmt.Fprintf(w, "%d sealed, %d truncated, %d without a seal, %d expired; %d entries of the audit log\n", s.Sealed, s.Truncated, len(s.Open), s.Expired, s.Entries)
	}); err != nil {
		return err
	}
	if len(s.Findings) > 0 {
		return fmt.Errorf("%d findings: recordings were changed, damaged, taken away, or may be in another's name", len(s.Findings))
	}
	return nil
}
