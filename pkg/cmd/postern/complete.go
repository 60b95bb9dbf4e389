package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/object"
)

// completeWait is how long somebody who presses the tabulator waits for names.
const completeWait = 2 * time.Second

// completed has the shell complete the names of tasks, resources and objects below c: what a
// command takes first is what its usage says.
func (a *app) completed(c *cobra.Command) {
	if words := strings.Fields(c.Use); len(words) > 1 && c.ValidArgsFunction == nil {
		switch first := strings.Trim(words[1], "[]"); {
		case first == "KIND":
			c.ValidArgsFunction = a.complete(objects, object.Kinds()...)
		case first == "RESOURCE":
			c.ValidArgsFunction = a.complete(func(ctx context.Context, api *api, _ string) ([]string, error) { return objects(ctx, api, "resource") })
		case strings.HasPrefix(first, "TASK"):
			c.ValidArgsFunction = a.complete(func(ctx context.Context, api *api, _ string) ([]string, error) {
				return tasks(ctx, api, c.Name(), strings.Contains(first, "RESOURCE"))
			})
		}
	}
	for _, sub := range c.Commands() {
		a.completed(sub)
	}
}

// complete asks the API for the argument behind kinds, where there are such, or else for the
// first. Who is not signed in, or waits too long, is offered nothing. Nor is a login renewed: one
// that is cut off on the way would be lost.
func (a *app) complete(names func(ctx context.Context, api *api, kind string) ([]string, error), kinds ...string) cobra.CompletionFunc {
	const nothing = cobra.ShellCompDirectiveNoFileComp
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		kind := ""
		if len(kinds) > 0 {
			if len(args) == 0 {
				return kinds, nothing
			}
			k, err := kindOf(args[0])
			if err != nil {
				return nil, nothing
			}
			kind, args = k, args[1:]
		}
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault // of the client that is run, say
		}
		a.env.Stderr = io.Discard
		ctx, cancel := context.WithTimeout(cmd.Context(), completeWait)
		defer cancel()
		if a.defaults(cmd) != nil {
			return nil, nothing
		}
		if a.env.Getenv("POSTERN_TOKEN") == "" {
			if t, err := a.loadTokens(ctx); err != nil || time.Until(t.API.Expires) <= slack {
				return nil, nothing
			}
		}
		api, err := a.dial(ctx, false)
		if err != nil {
			return nil, nothing
		}
		all, err := names(ctx, api, kind)
		if err != nil {
			return nil, nothing
		}
		return slices.DeleteFunc(all, func(name string) bool { return strings.ContainsFunc(name, odd) }), nothing
	}
}

func objects(ctx context.Context, api *api, kind string) ([]string, error) {
	all, err := list(ctx, api, kind)
	var names []string
	for _, o := range all {
		names = append(names, object.Name(o))
	}
	return names, err
}

// tasks are those that the caller may take and the client reaches; of one with several resources
// each, where the command takes that.
func tasks(ctx context.Context, api *api, client string, each bool) ([]string, error) {
	resp, err := api.access.ListTasks(ctx, connect.NewRequest(&apiv1.ListTasksRequest{}))
	if err != nil {
		return nil, err
	}
	speaks := ""
	for protocol, name := range clientOf {
		if name == client {
			speaks = protocol
		}
	}
	var names []string
	for _, o := range resp.Msg.GetTasks() {
		reached := slices.DeleteFunc(slices.Clone(o.GetResources()), func(r string) bool {
			protocol := o.GetProtocols()[r]
			return speaks != "" && protocol != "" && protocol != speaks
		})
		switch {
		case len(reached) == 0:
		case each && len(o.GetResources()) > 1:
			for _, r := range reached {
				names = append(names, o.GetTask()+"."+r)
			}
		default:
			names = append(names, o.GetTask())
		}
	}
	return names, nil
}
