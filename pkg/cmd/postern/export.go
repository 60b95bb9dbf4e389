package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/release"
)

func (a *app) exportCmd() *cobra.Command {
	req := &apiv1.ListSessionsRequest{}
	var within period
	var as string
	c := &cobra.Command{
		Use: "export [ID...]", Short: "Recordings as JSON lines, or one as asciicast or HAR",
		Long: "Recordings as JSON lines: of each session a line {\"session\": {...}}, then a line for each of its events.\n" +
			"Without ids it exports the sessions that the flags select, newest first. Each reading is audited.\n" +
			"With --as asciicast, what the terminal of one session showed, for asciinema and its players; with\n" +
			"--as har its HTTP requests and answers, for browsers and proxies.",
		Example: "  postern sessions export s-12ab... > session.jsonl\n  postern sessions export --subject carol --since 2d\n" +
			"  postern sessions export s-12ab... --as asciicast > session.cast\n  postern sessions export s-12ab... --as har > session.har",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if req.Since, req.Until, err = within.read(); err != nil {
				return err
			}
			if len(args) == 0 && req.GetSubject() == "" && req.GetTask() == "" && req.GetResource() == "" && within == (period{}) {
				return usage("say which: ids, or one of --subject, --task, --resource, --since and --until")
			}
			switch {
			case as == "jsonl":
				return a.export(cmd.Context(), req, args)
			case single[as] == nil:
				return usage("--as is jsonl, asciicast or har")
			case len(args) != 1:
				return usage("--as %s takes one id", as)
			}
			return a.exportAs(cmd.Context(), args[0], single[as])
		},
	}
	f := c.Flags()
	f.StringVar(&req.Subject, "subject", "", "only this subject's")
	f.StringVar(&req.Task, "task", "", "only of this task")
	f.StringVar(&req.Resource, "resource", "", "only on this resource")
	f.StringVar(&as, "as", "jsonl", "jsonl, asciicast or har")
	within.flags(c)
	return c
}

// single are the forms of one recording.
var single = map[string]func(w io.Writer, events iter.Seq2[*record.Event, error]) error{
	"asciicast": record.Asciicast,
	"har": func(w io.Writer, events iter.Seq2[*record.Event, error]) error {
		return record.HAR(w, release.Version, events)
	},
}

func (a *app) exportAs(ctx context.Context, id string, write func(io.Writer, iter.Seq2[*record.Event, error]) error) error {
	r, err := a.recording(ctx, id, toExport)
	if err != nil {
		return err
	}
	defer r.stream.Close()
	if err := a.warnOfDoubt(ctx, id); err != nil {
		return err
	}
	out := bufio.NewWriter(a.env.Stdout)
	return errors.Join(write(plainJSON{out}, record.Events(r.chunks(), r.data)), out.Flush())
}

func (a *app) export(ctx context.Context, req *apiv1.ListSessionsRequest, ids []string) error {
	api, err := a.dial(ctx, false)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(a.env.Stdout)
	count := make(chan int, 1)
	count <- 0
	err = a.busy(ctx, "exporting", func() string {
		n := <-count
		count <- n
		return plural(n, "sessions")
	}, func(ctx context.Context) error {
		for s, err := range a.selected(ctx, api, req, ids) {
			if err != nil {
				return err
			}
			if err := a.exportOne(ctx, out, s); err != nil {
				return fmt.Errorf("session %s: %w", s.GetId(), err)
			}
			count <- 1 + <-count
		}
		return nil
	})
	return errors.Join(err, out.Flush())
}

// selected yields the sessions by id, or by what the request says.
func (a *app) selected(ctx context.Context, api *api, req *apiv1.ListSessionsRequest, ids []string) func(func(*typesv1.Session, error) bool) {
	return func(yield func(*typesv1.Session, error) bool) {
		for _, id := range ids {
			resp, err := api.sessions.GetSession(ctx, connect.NewRequest(&apiv1.GetSessionRequest{Id: id}))
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(resp.Msg.GetSession(), nil) {
				return
			}
		}
		if len(ids) > 0 {
			return
		}
		for req.PageSize = maxPage; ; {
			resp, err := api.sessions.ListSessions(ctx, connect.NewRequest(req))
			if err != nil {
				yield(nil, err)
				return
			}
			for _, s := range resp.Msg.GetSessions() {
				if !yield(s, nil) {
					return
				}
			}
			if req.PageToken = resp.Msg.GetNextPageToken(); req.GetPageToken() == "" {
				return
			}
		}
	}
}

func (a *app) exportOne(ctx context.Context, out *bufio.Writer, s *typesv1.Session) error {
	js, err := protojson.Marshal(s)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(plainJSON{out}, "{\"session\":%s}\n", js); err != nil {
		return err
	}
	r, err := a.recording(ctx, s.GetId(), toExport)
	if err != nil {
		return err
	}
	defer r.stream.Close()
	return record.JSON(plainJSON{out}, record.Events(r.chunks(), r.data))
}

func (a *app) holdCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "hold ID", Short: "Keep a recording beyond its time", Example: `  postern sessions hold s-12ab... --reason "case 7"`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return usage("--reason is empty")
			}
			return a.setHold(cmd.Context(), args[0], reason, "session %s is kept until it is released")
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why")
	_ = c.MarkFlagRequired("reason")
	return c
}

func (a *app) releaseCmd() *cobra.Command {
	return &cobra.Command{
		Use: "release ID", Short: "Let a recording go that was held", Example: "  postern sessions release s-12ab...", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.setHold(cmd.Context(), args[0], "", "session %s goes when its time has come")
		},
	}
}

func (a *app) setHold(ctx context.Context, id, reason, done string) error {
	api, err := a.dial(ctx, false)
	if err != nil {
		return err
	}
	resp, err := api.sessions.SetLegalHold(ctx, connect.NewRequest(&apiv1.SetLegalHoldRequest{Id: id, Reason: reason}))
	if err != nil {
		return err
	}
	return a.done(resp.Msg, done, id)
}
