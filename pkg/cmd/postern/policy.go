package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

// readObjects reads YAML from files, folders (every .yaml and .yml in them, not those of folders within) or standard input ("-").
func (a *app) readObjects(paths []string) ([]*typesv1.Object, error) {
	if len(paths) == 0 {
		return nil, usage("-f FILE is required; - reads standard input")
	}
	files, err := yamlFiles(paths)
	if err != nil {
		return nil, err
	}
	var all []*typesv1.Object
	for _, f := range files {
		objects, err := a.readFile(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		all = append(all, objects...)
	}
	if len(all) == 0 {
		return nil, usage("there is nothing in %s", strings.Join(paths, ", "))
	}
	return all, nil
}

// yamlFiles are the files that are named, and the .yaml and .yml files of folders, in order.
func yamlFiles(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		if p == "-" {
			out = append(out, p)
			continue
		}
		st, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		if !st.IsDir() {
			out = append(out, p)
			continue
		}
		in, err := os.ReadDir(p)
		if err != nil {
			return nil, err
		}
		for _, e := range in {
			if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml") {
				out = append(out, filepath.Join(p, e.Name()))
			}
		}
	}
	return out, nil
}

func (a *app) readFile(f string) ([]*typesv1.Object, error) {
	if f == "-" {
		return object.ParseYAML(a.env.Stdin)
	}
	b, err := os.ReadFile(f)
	if err != nil {
		return nil, err
	}
	return object.ParseYAML(bytes.NewReader(b))
}

func (a *app) applyCmd() *cobra.Command {
	var files []string
	var dry bool
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Create or update objects from YAML, all or none",
		Example: "  postern apply -f tasks/\n  postern get task sales-report --format yaml | postern apply -f -",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			objects, err := a.readObjects(files)
			if err != nil {
				return err
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.policy.Apply(cmd.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: objects, DryRun: dry}))
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) {
				for _, d := range resp.Msg.GetApplied() {
					suffix := ""
					if dry {
						suffix = " (dry run)"
					}
					fmt.Fprintf(w, "%s %s%s\n", object.Ref(d.GetObject()), d.GetAction(), suffix)
				}
			})
		},
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, "YAML file or folder; - is standard input")
	c.Flags().BoolVar(&dry, "dry-run", false, "only check")
	return c
}

func (a *app) getCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "get KIND [NAME]", Short: "Read objects", Args: cobra.RangeArgs(1, 2),
		Example: "  postern get tasks\n  postern get task sales-report --format yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := kindOf(args[0])
			if err != nil {
				return err
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			if len(args) == 2 {
				resp, err := api.policy.Get(cmd.Context(), connect.NewRequest(&apiv1.GetRequest{Kind: kind, Name: args[1]}))
				if err != nil {
					return err
				}
				return a.show(cmd.Context(), api, []*typesv1.Object{resp.Msg}, true)
			}
			all, err := list(cmd.Context(), api, kind)
			if err != nil {
				return err
			}
			return a.show(cmd.Context(), api, all, false)
		},
	}
	return c
}

// show prints objects of one kind, and warns of workloads that need somebody.
func (a *app) show(ctx context.Context, api *api, all []*typesv1.Object, one bool) error {
	if err := a.printObjects(all, one); err != nil {
		return err
	}
	if len(all) == 0 || object.Kind(all[0]) != "workload" {
		return nil
	}
	return a.warn(ctx, api, all)
}

// kindOf takes a kind as people type it: task, tasks, Task.
func kindOf(s string) (string, error) {
	k := strings.ToLower(s)
	for _, known := range object.Kinds() {
		if k == known || k == known+"s" || k == known+"es" {
			return known, nil
		}
	}
	return "", usage("kind %q is not known; kinds: %s", s, strings.Join(object.Kinds(), ", "))
}

func list(ctx context.Context, api *api, kind string) ([]*typesv1.Object, error) {
	var all []*typesv1.Object
	req := &apiv1.ListRequest{Kind: kind, PageSize: 1000}
	for {
		resp, err := api.policy.List(ctx, connect.NewRequest(req))
		if err != nil {
			return nil, err
		}
		all = append(all, resp.Msg.GetObjects()...)
		if req.PageToken = resp.Msg.GetNextPageToken(); req.PageToken == "" {
			return all, nil
		}
	}
}

func (a *app) printObjects(all []*typesv1.Object, one bool) error {
	if a.format == "yaml" || one && a.format == "text" {
		for i, o := range all {
			if i > 0 {
				fmt.Fprintln(a.env.Stdout, "---")
			}
			y, err := object.YAML(o)
			if err != nil {
				return err
			}
			if _, err := (plainYAML{a.env.Stdout}).Write(y); err != nil {
				return err
			}
		}
		return nil
	}
	return printAll(a, all, func(w io.Writer) {
		var rows [][]string
		for _, o := range all {
			m := object.Meta(o)
			var labels []string
			for k, v := range m.GetLabels() {
				labels = append(labels, k+"="+v)
			}
			slices.Sort(labels)
			rows = append(rows, []string{m.GetName(), strings.Join(labels, ","), when(m.GetUpdateTime()), m.GetCreatedBy()})
		}
		table(w, "name labels changed by", rows)
	})
}

func (a *app) deleteCmd() *cobra.Command {
	var etag string
	var dry bool
	c := &cobra.Command{
		Use: "delete KIND NAME", Short: "Remove an object that nothing refers to", Args: cobra.ExactArgs(2),
		Example: "  postern delete binding contractors-report",
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := kindOf(args[0])
			if err != nil {
				return err
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.policy.Delete(cmd.Context(), connect.NewRequest(&apiv1.DeleteRequest{Kind: kind, Name: args[1], Etag: etag, DryRun: dry}))
			if err != nil {
				return err
			}
			suffix := ""
			if dry {
				suffix = " (dry run)"
			}
			return a.done(resp.Msg, "%s/%s deleted%s", kind, args[1], suffix)
		},
	}
	c.Flags().StringVar(&etag, "etag", "", "only if the object is at this revision")
	c.Flags().BoolVar(&dry, "dry-run", false, "only check")
	return c
}

// stored reads the stored form of an object; nil where there is none.
func stored(ctx context.Context, api *api, o *typesv1.Object) (*typesv1.Object, error) {
	resp, err := api.policy.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Kind: object.Kind(o), Name: object.Name(o)}))
	if connect.CodeOf(err) == connect.CodeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// difference is what apply would change of one object.
type difference struct {
	Object string `json:"object"` // as kind/name
	Diff   string `json:"diff"`   // lines, with + and - before what comes and goes
}

func (a *app) diffCmd() *cobra.Command {
	var files []string
	c := &cobra.Command{
		Use: "diff -f FILE", Short: "Show what apply would change", Args: cobra.NoArgs,
		Example: "  postern diff -f tasks/",
		RunE: func(cmd *cobra.Command, _ []string) error {
			objects, err := a.readObjects(files)
			if err != nil {
				return err
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			differ := []difference{}
			for _, o := range objects {
				have, err := stored(cmd.Context(), api, o)
				if err != nil {
					return err
				}
				before, after := "", own(o)
				if have != nil {
					before = own(have)
				}
				if before != after {
					differ = append(differ, difference{object.Ref(o), lineDiff(before, after)})
				}
			}
			return a.printValue(differ, func(w io.Writer) {
				for _, d := range differ {
					fmt.Fprintf(w, "%s\n%s", d.Object, d.Diff)
				}
			})
		},
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, "YAML file or folder; - is standard input")
	return c
}

// own is an object's text without what the system keeps in its metadata.
func own(o *typesv1.Object) string {
	o = proto.Clone(o).(*typesv1.Object)
	m := object.Meta(o)
	m.Uid, m.Etag, m.CreatedBy, m.CreateTime, m.UpdateTime = "", "", "", nil, nil
	y, err := object.YAML(o)
	if err != nil {
		return err.Error()
	}
	return string(y)
}

func (a *app) editCmd() *cobra.Command {
	return &cobra.Command{
		Use: "edit KIND NAME", Short: "Edit an object in $EDITOR", Args: cobra.ExactArgs(2),
		Example: "  postern edit task sales-report",
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := kindOf(args[0])
			if err != nil {
				return err
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			have, err := stored(cmd.Context(), api, object.Bare(kind, args[1]))
			if err != nil {
				return err
			}
			if have == nil {
				return fmt.Errorf("there is no %s %q", kind, args[1])
			}
			return a.edit(cmd.Context(), api, have)
		},
	}
}

func (a *app) edit(ctx context.Context, api *api, have *typesv1.Object) error {
	text, err := object.YAML(have)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "postern-*.yaml")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	edited, err := a.edited(ctx, f.Name())
	if err == nil && !bytes.Equal(edited, text) {
		if err := a.update(ctx, api, have, edited); err != nil {
			return fmt.Errorf("%w; what was written is kept in %s", err, f.Name())
		}
		a.say("%s updated", object.Ref(have))
	} else if err == nil {
		a.say("nothing changed")
	}
	return errors.Join(err, os.Remove(f.Name()))
}

// edited is what a file holds once the person's editor has ended.
func (a *app) edited(ctx context.Context, file string) ([]byte, error) {
	editor := cmp.Or(a.env.Getenv("VISUAL"), a.env.Getenv("EDITOR"), "vi")
	err := a.run(exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, "sh", file))
	if child := (childError{}); errors.As(err, &child) { // whose code is not ours
		return nil, fmt.Errorf("the editor %q ended with code %d, and nothing was written", editor, child.code)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

// update writes the object that a text describes in the place of the one that there is.
func (a *app) update(ctx context.Context, api *api, have *typesv1.Object, text []byte) error {
	objects, err := object.ParseYAML(bytes.NewReader(text))
	if err != nil {
		return err
	}
	if len(objects) != 1 || object.Ref(objects[0]) != object.Ref(have) {
		return usage("the text must stay one object, %s", object.Ref(have))
	}
	_, err = api.policy.Update(ctx, connect.NewRequest(&apiv1.UpdateRequest{Object: objects[0]}))
	return err
}
