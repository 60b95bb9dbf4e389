package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

func (a *app) nodesCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "nodes", Short: "The fleet: region, version enforced and how far behind, sessions, spool", Example: "  postern nodes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listNodes(cmd) },
	}
	c.AddCommand(&cobra.Command{Use: "list", Short: "The fleet as it is now", Example: "  postern nodes list --format json", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return a.listNodes(cmd) }}, a.enrolCmd(), a.drainCmd())
	return c
}

func (a *app) listNodes(cmd *cobra.Command) error {
	api, err := a.dial(cmd.Context(), false)
	if err != nil {
		return err
	}
	resp, err := api.nodes.ListNodes(cmd.Context(), connect.NewRequest(&apiv1.ListNodesRequest{}))
	if err != nil {
		return err
	}
	return printAll(a, resp.Msg.GetNodes(), func(w io.Writer) {
		var rows [][]string
		for _, n := range resp.Msg.GetNodes() {
			state := "lost"
			if n.GetConnected() {
				state = "connected"
			}
			if n.GetReport().GetDraining() {
				state = "draining"
			}
			var rejected []string
			for _, r := range n.GetRejections() {
				rejected = append(rejected, r.GetObject())
			}
			spool := fmt.Sprintf("%d B, %s", n.GetReport().GetSpoolBytes(), n.GetReport().GetSpoolAge().AsDuration().Round(time.Second))
			if aside := n.GetReport().GetRecordingsAside(); aside > 0 {
				spool += fmt.Sprintf(", %d aside", aside)
			}
			role := n.GetRole()
			if role == "" {
				role = "node"
			}
			rows = append(rows, []string{n.GetName(), role, n.GetRegion(), state, fmt.Sprint(n.GetVersion().GetRevision()),
				n.GetLag().AsDuration().Round(time.Millisecond).String(), fmt.Sprint(n.GetReport().GetSessions()),
				spool, strings.Join(rejected, ",")})
		}
		table(w, "name role region state version lag sessions spool rejected", rows)
		for _, n := range resp.Msg.GetNodes() {
			for _, t := range n.GetReport().GetTroubles() {
				fmt.Fprintf(w, "%s cannot log in to %s since %s: %s\n", n.GetName(), t.GetResource(), when(t.GetSinceTime()), oneLine(t.GetError(), len(t.GetError())))
			}
		}
		fmt.Fprintf(w, "published: %s/%d\n", resp.Msg.GetVersion().GetEpoch(), resp.Msg.GetVersion().GetRevision())
	})
}

func (a *app) enrolCmd() *cobra.Command {
	var region, role string
	var labels map[string]string
	var ttl time.Duration
	c := &cobra.Command{
		Use: "enrol NODE", Aliases: []string{"enroll"}, Short: "Make a one-time token with which a node or a wall joins", Args: cobra.ExactArgs(1),
		Example: "  postern nodes enrol eu-1-a --region eu-1 > join-token\n  postern nodes enrol eu-1-wall --region eu-1 --role wall > join-token",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.nodes.CreateJoinToken(cmd.Context(), connect.NewRequest(&apiv1.CreateJoinTokenRequest{Name: args[0], Region: region, Labels: labels, Ttl: ttlOf(ttl), Role: role}))
			if err != nil {
				return err
			}
			a.say("good once, until %s", when(resp.Msg.GetExpireTime()))
			return a.print(resp.Msg, func(w io.Writer) { fmt.Fprintln(w, resp.Msg.GetToken()) })
		},
	}
	c.Flags().StringVar(&region, "region", "", "where the node stands")
	c.Flags().StringToStringVar(&labels, "label", nil, "labels, key=value")
	c.Flags().StringVar(&role, "role", "", "wall for a postern-wall; a node where it is not given")
	forFlag(c, &ttl, "how long the token is good; 10m where it is not given, 1h at most")
	_ = c.MarkFlagRequired("region")
	return c
}

func (a *app) drainCmd() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use: "drain NODE", Short: "Stop new sessions on a node", Example: "  postern nodes drain eu-1-a --timeout 5m", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.nodes.DrainNode(cmd.Context(), connect.NewRequest(&apiv1.DrainNodeRequest{Name: args[0], Timeout: ttlOf(timeout)}))
			if err != nil {
				return err
			}
			return a.done(resp.Msg, "%s takes no new sessions", args[0])
		},
	}
	c.Flags().Var((*span)(&timeout), "timeout", "how long live sessions may go on; as they like where it is not given")
	return c
}

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Whether the control plane answers, and which nodes clients can use", Example: "  postern status", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			began := time.Now()
			resp, err := api.access.ListEndpoints(cmd.Context(), connect.NewRequest(&apiv1.ListEndpointsRequest{}))
			if err != nil {
				return err
			}
			took := time.Since(began)
			workloads, err := list(cmd.Context(), api, "workload")
			if err == nil {
				err = a.warn(cmd.Context(), api, workloads)
			}
			if err != nil && connect.CodeOf(err) != connect.CodePermissionDenied { // not for everybody
				return err
			}
			return a.print(resp.Msg.GetEndpoints(), func(w io.Writer) {
				fmt.Fprintf(w, "%s answered in %s\n", a.addr, took.Round(time.Millisecond))
				var rows [][]string
				for _, n := range resp.Msg.GetEndpoints().GetNodes() {
					var addrs []string
					for _, p := range slices.Sorted(maps.Keys(n.GetAddresses())) {
						addrs = append(addrs, p+"="+n.GetAddresses()[p])
					}
					rows = append(rows, []string{n.GetNode(), n.GetRegion(), strings.Join(addrs, " "), strings.Join(n.GetResources(), ","), fmt.Sprint(n.GetSessions())})
				}
				table(w, "node region addresses resources sessions", rows)
			})
		},
	}
}
