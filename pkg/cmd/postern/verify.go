package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

func (a *app) verifyCmd() *cobra.Command {
	var o offline
	var dir string
	var raw []string
	c := &cobra.Command{
		Use: "verify ID", Short: "Prove that a recording is what the node wrote",
		Long: "What masks hid (spec.record.storeRaw) is verified too, for who may read it: its chain and its signature,\n" +
			"and with --raw-key what is in it. To others it says that it was not verified.\n\n" +
			"With --dir, verifies the recordings of a folder from files alone, all where no ID is given, and finds\n" +
			"those of which the audit log tells and which are missing. No recording is opened for that, so\n" +
			"that nobody needs a right to what is raw.",
		Example: "  postern sessions verify s-12ab...\n  postern sessions verify --dir recordings/chunks --log audit --key audit.key.pub",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case dir != "" && len(raw) > 0:
				return usage("--raw-key opens what is read from the control plane; with --dir nothing is opened")
			case dir != "":
				return a.verifyFiles(&o, dir, args)
			case o.log != "" || len(o.keys) > 0 || len(o.earlier) > 0:
				return usage("--log, --key and --earlier verify the files of a folder, which --dir names")
			case len(args) != 1:
				return usage("name one session, or a folder with --dir")
			}
			return a.verify(cmd.Context(), args[0], raw)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "a folder with stored recordings")
	c.Flags().StringArrayVar(&raw, "raw-key", nil, "a file with a raw key; again for older keys")
	o.flags(c, "log")
	return c
}

// doubted says that a node may have written down a session in somebody else's name.
func doubted(s *typesv1.Session) error {
	if s.GetDoubt() == "" {
		return nil
	}
	return fmt.Errorf("whose session it is cannot be believed: %s", s.GetDoubt())
}

// verification is what was found of a recording and, where there is one, of the raw one
// beside it.
type verification struct {
	Session    string           `json:"session"`
	State      string           `json:"state"`
	Chunks     int              `json:"chunks"`
	Events     int64            `json:"events"`
	Statements int64            `json:"statements"`
	Doubt      string           `json:"doubt,omitempty"` // why whose it is cannot be believed
	Raw        *rawVerification `json:"raw,omitempty"`
}

// rawVerification is what was found of what masks hid.
type rawVerification struct {
	Session  string `json:"session"`
	Verified bool   `json:"verified"` // false: the caller may not read it
	Opened   bool   `json:"opened"`   // what is in it was verified too
	State    string `json:"state,omitempty"`
	Chunks   int    `json:"chunks"`
}

func (v *verification) text(w io.Writer) {
	fmt.Fprintf(w, "%s %s: %d chunks, %d events, %d statements; chain and signature hold\n", v.Session, v.State, v.Chunks, v.Events, v.Statements)
	switch raw := v.Raw; {
	case raw == nil:
	case !raw.Verified:
		fmt.Fprintln(w, "what masks hid was recorded too, and NOT verified: that is for auditors who have the role rawreader too, or for who has the files (--dir)")
	case raw.Opened:
		fmt.Fprintf(w, "%s %s: %d chunks of what masks hid, opened; chain and signature hold\n", raw.Session, raw.State, raw.Chunks)
	default:
		fmt.Fprintf(w, "%s %s: %d chunks of what masks hid, not opened; chain and signature hold\n", raw.Session, raw.State, raw.Chunks)
	}
}

// verify verifies a session's recording, and its raw recording where there is one and the
// caller may read that. What holds is told even where the raw one does not.
func (a *app) verify(ctx context.Context, id string, rawKeys []string) error {
	r, err := a.recording(ctx, id, toVerify)
	if err != nil {
		return err
	}
	rep, err := a.proved(r)
	if err != nil {
		return err
	}
	row, err := a.session(ctx, id)
	switch {
	case err != nil:
		return err
	case rep.State == record.StateOpen && row.GetRecording() == string(record.StateTruncated):
		return fmt.Errorf("the %d chunks that are there hold together, but no seal says that they are all: its node lost the rest (postern sessions show %s)", rep.Chunks, id)
	case rep.State == record.StateOpen:
		return fmt.Errorf("the %d chunks that are there hold together, but no seal says that they are all: the session still runs, or its end was taken away", rep.Chunks)
	}
	v := &verification{Session: id, State: string(rep.State), Chunks: rep.Chunks, Events: rep.Events, Statements: rep.Statements, Doubt: row.GetDoubt()}
	if rep.Raw {
		v.Raw, err = a.verifyRaw(ctx, id, rawKeys)
	}
	return errors.Join(a.printValue(v, v.text), doubted(row), err)
}

// verifyRaw verifies the raw recording of a session that says that it has one.
func (a *app) verifyRaw(ctx context.Context, id string, keys []string) (*rawVerification, error) {
	v := &rawVerification{Session: string(record.RawID(postern.SessionID(id)))}
	r, err := a.rawRecording(ctx, id, toVerify, keys)
	switch code := connect.CodeOf(err); {
	case code == connect.CodePermissionDenied:
		return v, nil
	case code == connect.CodeNotFound:
		return nil, errors.New("the recording says that what masks hid was recorded too, and nothing of that is there: its node has not sent it yet, or it was taken away")
	case err != nil:
		return nil, err
	}
	v.Opened = r.data != nil
	rep, err := a.proved(r)
	switch {
	case err != nil:
		return nil, fmt.Errorf("what masks hid: %w", err)
	case rep.State == record.StateOpen:
		return nil, fmt.Errorf("what masks hid: the %d chunks that are there hold together, but no seal says that they are all: its node has not sent the rest yet, or it was taken away", rep.Chunks)
	}
	v.Verified, v.State, v.Chunks = true, string(rep.State), rep.Chunks
	return v, nil
}

// proved verifies what is streamed, and says what is wrong.
func (a *app) proved(r *recording) (record.Report, error) {
	defer r.stream.Close()
	rep, err := record.Verify(r.chunks(), r.node, r.data)
	if err != nil {
		return rep, err
	}
	for _, e := range rep.Errors {
		a.say("  %s", e)
	}
	if len(rep.Errors) > 0 {
		return rep, errors.New("the recording was changed or damaged")
	}
	return rep, nil
}
