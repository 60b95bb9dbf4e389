package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/posterngate/postern/pkg/object/fields"
)

func (a *app) fieldsCmd() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "fields [PATH]", Short: "What may be written in an object: the fields of each kind, and what they mean",
		Long: `What may be written in an object: the fields of each kind, and what they mean.

PATH is a kind, and fields of it with dots between. With --format json or yaml it is a JSON
Schema, by which editors complete and check what is written.`,
		Example: "  postern fields\n  postern fields task.spec.permit\n  postern fields --all task\n  postern fields --format json > postern.schema.json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.printValue(fields.Schema(), func(w io.Writer) {
					for _, k := range fields.Kinds() {
						writeField(w, "", k, all)
					}
				})
			}
			f, err := fields.At(args[0])
			if err != nil {
				return usage("%w", err)
			}
			return a.printValue(f.Schema(), func(w io.Writer) {
				fmt.Fprintf(w, "%s: %s\n", args[0], f.Type)
				paragraphs(w, "  ", f.Doc)
				if f.About != "" {
					paragraphs(w, "  ", f.About)
				}
				fmt.Fprintln(w)
				for _, below := range f.Fields() {
					writeField(w, "", below, all)
				}
			})
		},
		ValidArgsFunction: completeFields,
	}
	c.Flags().BoolVar(&all, "all", false, "all that is below, too")
	return c
}

// writeField writes one field, and where all is set what it holds.
func writeField(w io.Writer, indent string, f fields.Field, all bool) {
	fmt.Fprintf(w, "%s%s: %s\n", indent, f.Name, f.Type)
	paragraphs(w, indent+"    # ", f.Doc)
	if !all && f.Name != "spec" { // which nobody leaves out
		return
	}
	for _, below := range f.Fields() {
		writeField(w, indent+"  ", below, all)
	}
}

// proseWidth is how long lines of prose are where there is no terminal, in columns.
const proseWidth = 100

// paragraphs writes lines of prose, each begun by indent and broken between words where it would
// be wider than the terminal.
func paragraphs(w io.Writer, indent, text string) {
	wide := columns(w)
	if wide == 0 || wide > proseWidth {
		wide = proseWidth
	}
	for p := range strings.SplitSeq(text, "\n") {
		line := indent
		for i, word := range strings.Fields(p) {
			if i > 0 && cells(line)+1+cells(word) > wide {
				fmt.Fprintln(w, line)
				line = indent
			}
			if line != indent {
				line += " "
			}
			line += word
		}
		fmt.Fprintln(w, line)
	}
}

// completeFields has the shell complete a path, a name at a time.
func completeFields(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	if len(args) > 0 {
		return nil, directive
	}
	at, below := "", fields.Kinds()
	if i := strings.LastIndexByte(typed, '.'); i >= 0 {
		f, err := fields.At(typed[:i])
		if err != nil {
			return nil, directive
		}
		at, below = typed[:i+1], f.Fields()
	}
	var paths []string
	for _, f := range below {
		if strings.HasPrefix(at+f.Name, typed) {
			paths = append(paths, at+f.Name)
		}
	}
	return paths, directive
}
