package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

func (a *app) sessionsCmd() *cobra.Command {
	c := group("sessions", "Recordings: list, show, replay, follow, verify, export, hold; and kill")
	c.AddCommand(a.sessionsListCmd(), a.sessionsShowCmd(), a.replayCmd(), a.followCmd(), a.verifyCmd(), a.killCmd(),
		a.exportCmd(), a.holdCmd(), a.releaseCmd(), a.rawKeyCmd())
	return c
}

func (a *app) sessionsListCmd() *cobra.Command {
	req := &apiv1.ListSessionsRequest{}
	var within period
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "Sessions, newest first", Args: cobra.NoArgs,
		Example: "  postern sessions list --subject carol --since 2d",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if req.Since, req.Until, err = within.read(); err != nil {
				return err
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			var all []*typesv1.Session
			err = a.pages(cmd.Context(), "listing", limit, func(ctx context.Context, size int32, token string) (int, string, error) {
				req.PageSize, req.PageToken = size, token
				resp, err := api.sessions.ListSessions(ctx, connect.NewRequest(req))
				if err != nil {
					return 0, "", err
				}
				all = append(all, resp.Msg.GetSessions()...)
				return len(resp.Msg.GetSessions()), resp.Msg.GetNextPageToken(), nil
			})
			if err != nil {
				return err
			}
			return printAll(a, all, func(w io.Writer) {
				var rows [][]string
				for _, s := range all {
					end := "live"
					if s.GetEndTime() != nil {
						end = s.GetEndTime().AsTime().Sub(s.GetStartTime().AsTime()).Round(time.Millisecond).String()
					}
					rows = append(rows, []string{s.GetId(), acting(s), s.GetTask(), s.GetResource(), when(s.GetStartTime()), end,
						fmt.Sprintf("%d (%d denied)", s.GetStatements(), s.GetDenied()), s.GetRecording(), oneLine(s.GetEndReason(), 40)})
				}
				table(w, "id who task resource began lasted statements recording ended", rows)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.Subject, "subject", "", "only this subject's")
	f.StringVar(&req.Task, "task", "", "only of this task")
	f.StringVar(&req.Resource, "resource", "", "only on this resource")
	f.BoolVar(&req.Live, "live", false, "only those that live")
	within.flags(c)
	f.IntVar(&limit, "limit", 100, "at most this many")
	return c
}

func (a *app) sessionsShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "One session: who, what for, from where, how it ended", Example: "  postern sessions show s-12ab...", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.session(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(s, func(w io.Writer) { showSession(w, s) })
		},
	}
}

func (a *app) session(ctx context.Context, id string) (*typesv1.Session, error) {
	api, err := a.dial(ctx, false)
	if err != nil {
		return nil, err
	}
	resp, err := api.sessions.GetSession(ctx, connect.NewRequest(&apiv1.GetSessionRequest{Id: id}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetSession(), nil
}

// acting is a session's subject, with whoever acts for it; a question mark says that its node
// may have made that up.
func acting(s interface {
	GetSubject() string
	GetActors() []string
	GetDoubt() string
}) string {
	return questioned(strings.Join(append([]string{s.GetSubject()}, s.GetActors()...), " by "), s.GetDoubt() != "")
}

func questioned(who string, doubted bool) string {
	if doubted {
		who += " (?)"
	}
	return who
}

func showSession(w io.Writer, s *typesv1.Session) {
	for _, r := range [][2]string{
		{"id", s.GetId()}, {"subject", acting(s)}, {"doubt", s.GetDoubt()}, {"task", s.GetTask()}, {"resource", s.GetResource()}, {"grant", s.GetGrant()},
		{"client", s.GetClientAddress() + " " + s.GetClientProgram()}, {"node", s.GetNode() + " in " + s.GetRegion()},
		{"policy", fmt.Sprintf("%s/%d", s.GetVersion().GetEpoch(), s.GetVersion().GetRevision())},
		{"began", when(s.GetStartTime())}, {"ended", when(s.GetEndTime())}, {"because", s.GetEndReason()},
		{"statements", fmt.Sprintf("%d, %d of them denied", s.GetStatements(), s.GetDenied())},
		{"returned", fmt.Sprintf("%d rows, %d bytes", s.GetRows(), s.GetBytes())},
		{"recording", fmt.Sprintf("%s, %d chunks", s.GetRecording(), s.GetChunks())},
	} {
		field(w, 11, r[0], r[1])
	}
}

// What a recording is read for.
const (
	toReplay = "replay"
	toFollow = "follow"
	toVerify = "verify"
	toExport = "export"
)

// recording is a stream of a recording's chunks, the key that signed its seal and the
// one that opens them.
type recording struct {
	stream *connect.ServerStreamForClient[apiv1.ReadRecordingResponse]
	first  bool // whether the first chunk has been received
	node   crypto.PublicKey
	data   *record.DataKey
}

// recording opens the stream and waits for the first chunk, with which the keys come.
// The purpose is what the audit log tells of the reading.
func (a *app) recording(ctx context.Context, id, purpose string) (*recording, error) {
	r, err := a.chunksOf(ctx, &apiv1.ReadRecordingRequest{Id: id, Follow: purpose == toFollow, Purpose: purpose})
	if err != nil {
		return nil, err
	}
	if r.data, err = record.OpenDataKey(r.stream.Msg().GetDataKey()); err != nil {
		return nil, errors.Join(err, r.stream.Close())
	}
	return r, nil
}

// chunksOf opens a stream, and sees to it that what comes is what was asked for.
func (a *app) chunksOf(ctx context.Context, req *apiv1.ReadRecordingRequest) (*recording, error) {
	api, err := a.dial(ctx, false)
	if err != nil {
		return nil, err
	}
	stream, err := api.sessions.ReadRecording(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	r := &recording{stream: stream}
	if r.first = stream.Receive(); !r.first {
		return nil, errors.Join(stream.Err(), stream.Close())
	}
	if r.node, err = x509.ParsePKIXPublicKey(stream.Msg().GetNodeKey()); err != nil {
		return nil, errors.Join(fmt.Errorf("the node's key: %w", err), stream.Close())
	}
	want := postern.SessionID(req.GetId())
	if req.GetRaw() {
		want = record.RawID(want)
	}
	// One that cannot be parsed is told of where it is read; the others must follow this one.
	if first, err := record.ParseChunk(stream.Msg().GetChunk()); err == nil && first.Session != want {
		return nil, errors.Join(fmt.Errorf("it is the recording of another session: %q", first.Session), stream.Close())
	}
	return r, nil
}

// chunks yields the chunks as they arrive.
func (r *recording) chunks() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for r.first || r.stream.Receive() {
			r.first = false
			if !yield(r.stream.Msg().GetChunk(), nil) {
				return
			}
		}
		if err := r.stream.Err(); err != nil {
			yield(nil, err)
		}
	}
}

func (a *app) replayCmd() *cobra.Command {
	var speed float64
	var raw []string
	c := &cobra.Command{
		Use: "replay ID", Short: "Show what happened in a session", Args: cobra.ExactArgs(1),
		Long: "With --raw-key also what masks hid, where the session's task kept it (spec.record.storeRaw): for auditors\n" +
			"who have the role rawreader too. The key is used here, and not sent.",
		Example: "  postern sessions replay s-12ab...\n  postern sessions replay s-12ab... --speed 4\n  postern sessions replay s-12ab... --raw-key raw.key",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !(speed >= 0) { // nor is it no number
				return usage("--speed is a multiple of real time, or 0")
			}
			return a.replay(cmd.Context(), args[0], toReplay, speed, raw...)
		},
	}
	c.Flags().StringArrayVar(&raw, "raw-key", nil, "a file with a raw key; again for older keys")
	c.Flags().Float64Var(&speed, "speed", 0, "pace, as a multiple of real time; 0 shows all at once")
	return c
}

func (a *app) followCmd() *cobra.Command {
	return &cobra.Command{
		Use: "follow ID", Short: "Watch a session while it lives", Example: "  postern sessions follow s-12ab...", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.replay(cmd.Context(), args[0], toFollow, 0) },
	}
}

func (a *app) replay(ctx context.Context, id, purpose string, speed float64, rawKeys ...string) error {
	r, err := a.recording(ctx, id, purpose)
	if err != nil {
		return err
	}
	defer r.stream.Close()
	if err := a.warnOfDoubt(ctx, id); err != nil {
		return err
	}
	events := record.Events(r.chunks(), r.data)
	if len(rawKeys) > 0 {
		raw, err := a.rawRecording(ctx, id, toReplay, rawKeys)
		if err != nil {
			return err
		}
		defer raw.stream.Close()
		events = record.WithRaw(events, record.Events(raw.chunks(), raw.data))
	}
	switch a.format {
	case "json":
		return record.JSON(plainJSON{a.env.Stdout}, events)
	case "yaml":
		return record.JSON(yamlLines{plainYAML{a.env.Stdout}}, events)
	}
	return record.Text(ctx, a.env.Stdout, events, record.Options{Colour: a.colours(), Speed: speed})
}

// warnOfDoubt says beside a recording that it may be in somebody else's name.
func (a *app) warnOfDoubt(ctx context.Context, id string) error {
	s, err := a.session(ctx, id)
	if err == nil && s.GetDoubt() != "" {
		a.say("postern: %v", doubted(s))
	}
	return err
}

// yamlLines turns each line of JSON into a YAML document.
type yamlLines struct{ w io.Writer }

func (y yamlLines) Write(line []byte) (int, error) {
	text, err := toYAML(line)
	if err != nil {
		return 0, err
	}
	for _, part := range [][]byte{[]byte("---\n"), text} {
		if _, err := y.w.Write(part); err != nil {
			return 0, err
		}
	}
	return len(line), nil
}

func (a *app) killCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "kill ID", Short: "End a session", Example: `  postern sessions kill s-12ab... --reason "wrong database"`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.sessions.KillSession(cmd.Context(), connect.NewRequest(&apiv1.KillSessionRequest{Id: args[0], Reason: reason}))
			if err != nil {
				return err
			}
			return a.done(resp.Msg, "ended at node %s", resp.Msg.GetNode())
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; shown to the person who is cut off")
	_ = c.MarkFlagRequired("reason")
	return c
}
