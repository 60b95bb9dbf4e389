package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

func (a *app) auditLogCmd() *cobra.Command {
	req := &apiv1.ListAuditEntriesRequest{}
	var from string
	var diff bool
	var limit int
	c := &cobra.Command{
		Use: "log", Short: "What people did to Postern itself, newest first", Args: cobra.NoArgs,
		Long: "What people did to Postern itself, newest first. With --diff, and where one object is asked for,\n" +
			"each entry shows what it changed, line by line. Secrets show as (secret).",
		Example: "  postern audit log --actor bob --since 2d\n  postern audit log --object task/sales-report",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if req.Since, err = since(from); err != nil {
				return err
			}
			if !cmd.Flags().Changed("diff") {
				diff = req.GetObject() != ""
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			var entries []*apiv1.AuditEntry
			err = a.pages(cmd.Context(), "reading the log", limit, func(ctx context.Context, size int32, token string) (int, string, error) {
				req.PageSize, req.PageToken = size, token
				resp, err := api.audit.ListAuditEntries(ctx, connect.NewRequest(req))
				if err != nil {
					return 0, "", err
				}
				entries = append(entries, resp.Msg.GetEntries()...)
				return len(resp.Msg.GetEntries()), resp.Msg.GetNextPageToken(), nil
			})
			if err != nil {
				return err
			}
			return printAll(a, entries, func(w io.Writer) {
				if !diff {
					auditTable(w, entries)
					return
				}
				changes := wholeChanges(entries)
				for i, e := range entries {
					auditTable(w, entries[i:i+1])
					for _, c := range changes[e.GetSequence()] {
						if req.GetObject() == "" || c.GetObject() == req.GetObject() {
							fmt.Fprintf(w, "\n%s %s\n%s", c.GetAction(), c.GetObject(), lineDiff(asYAML(c.GetBefore()), asYAML(c.GetAfter())))
						}
					}
					fmt.Fprintln(w)
				}
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.Actor, "actor", "", "only this subject's")
	f.StringVar(&req.Object, "object", "", "only about this object, such as task/sales-report")
	f.StringVar(&from, "since", "", "a duration before now, or an RFC 3339 time")
	f.IntVar(&limit, "limit", 100, "at most this many")
	f.BoolVar(&diff, "diff", false, "show what was changed; the default where --object is given")
	return c
}

func auditTable(w io.Writer, entries []*apiv1.AuditEntry) {
	var rows [][]string
	for _, e := range entries {
		rows = append(rows, []string{fmt.Sprint(e.GetSequence()), when(e.GetTime()), strings.Join(append([]string{e.GetActor()}, e.GetActors()...), " by "), e.GetAction(), e.GetObject(), e.GetOutcome()})
	}
	table(w, "no when who did to outcome", rows)
}

// wholeChanges are the changes of entries, newest first, by the sequence of the entry in which
// each ends: what was split over several is put together again.
func wholeChanges(entries []*apiv1.AuditEntry) map[int64][]*apiv1.AuditChange {
	whole := make(map[int64][]*apiv1.AuditChange)
	var begun *apiv1.AuditChange
	for _, e := range slices.Backward(entries) {
		for _, c := range e.GetChanges() {
			if begun == nil || begun.GetObject() != c.GetObject() {
				begun = &apiv1.AuditChange{Object: c.GetObject(), Action: c.GetAction()}
			}
			begun.Before += c.GetBefore()
			begun.After += c.GetAfter()
			if !c.GetMore() {
				whole[e.GetSequence()] = append(whole[e.GetSequence()], begun)
				begun = nil
			}
		}
	}
	return whole
}

// asYAML is JSON as people write it; what is not whole stays as it is.
func asYAML(js string) string {
	if js == "" {
		return ""
	}
	text, err := toYAML([]byte(js))
	if err != nil {
		return strings.TrimSpace(js) + "\n"
	}
	return string(text)
}
