// Package content masks bodies as they pass: JSON by path and by name, CSV and forms by
// field, and any text by what it looks like, in pieces and without keeping the whole. It
// reads strictly: what two readers could understand in two ways is an error, and so is a
// body of a type in which its masks cannot be kept.
package content

import (
	"errors"
	"fmt"
	"mime"
	"strings"

	"github.com/posterngate/postern/pkg/detect"
	"github.com/posterngate/postern/pkg/mask"
	"github.com/posterngate/postern/pkg/postern"
)

// What can be wrong with a body. Errors say where and what.
var (
	// ErrType means that masks cannot be kept in a body of this type.
	ErrType = errors.New("masks cannot be kept in it")
	// ErrForm means that a body is not strictly of its type.
	ErrForm = errors.New("it is not strictly what it says it is")
	// ErrLimit means that a part of a body is over a limit.
	ErrLimit = errors.New("it is over a limit")
)

// Limits of what is read.
const (
	// MaxDepth is how deep JSON may be nested.
	MaxDepth = 128
	// MaxName is the longest name of a JSON member, in bytes.
	MaxName = 4096
	// MaxMembers is how many members one JSON object may have.
	MaxMembers = 1 << 16
	// MaxNumber is the longest JSON number, in characters.
	MaxNumber = 512
	// MaxField is the longest field of CSV or a form, in bytes, and the longest text of
	// which a mask shows parts.
	MaxField = 64 << 10
	// MaxColumns is how many columns CSV may have.
	MaxColumns = 4096
)

// A Masker masks one body, in order. It is for one goroutine, and of no use after an
// error: nothing more of the body may be shown then.
type Masker interface {
	// Append appends to dst what may be shown once chunk has come. The chunk is not kept.
	Append(dst, chunk []byte) ([]byte, error)
	// Close appends the rest, for nothing more comes.
	Close(dst []byte) ([]byte, error)
}

// A Rule is a compiled postern.ContentRule. It is immutable and safe for concurrent use.
type Rule struct {
	set   *detect.Set // nil detects nothing
	paths *node       // nil where there are none
	names map[string]*mask.Writer
}

// Compile makes a Rule; an error says which part cannot be kept anywhere. A nil rule, or
// one without parts, masks nothing.
func Compile(rule *postern.ContentRule) (*Rule, error) {
	r := &Rule{names: map[string]*mask.Writer{}}
	if rule == nil {
		return r, nil
	}
	for _, f := range rule.Fields {
		w, err := mask.NewWriter(f.Mask, "text")
		if err != nil {
			return nil, fmt.Errorf("mask %s: %w", f.Path, err)
		}
		names, err := split(f.Path)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(f.Path, "/") {
			r.names[names[0]] = &w
			continue
		}
		if r.paths == nil {
			r.paths = &node{}
		}
		r.paths.add(names, &w)
	}
	if len(rule.Detect) > 0 {
		set, err := detect.Compile(rule.Detect)
		if err != nil {
			return nil, err
		}
		r.set = set
	}
	return r, nil
}

// Empty reports whether the rule masks nothing, as none does.
func (r *Rule) Empty() bool { return r == nil || r.set == nil && !r.Fields() }

// Fields reports whether the rule masks values by where they stand, which takes a body
// that has fields.
func (r *Rule) Fields() bool { return r.paths != nil || len(r.names) > 0 }

// Masker is a Masker for a body of a content type, such as "application/json;
// charset=utf-8". An error is ErrType: the body must not be shown.
func (r *Rule) Masker(contentType string) (Masker, error) {
	kind, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, fmt.Errorf("content type %q: %w", contentType, ErrType)
	}
	switch strings.ToLower(parameters["charset"]) {
	case "", "utf-8", "utf8", "us-ascii":
	default:
		return nil, fmt.Errorf("charset %q: %w", parameters["charset"], ErrType)
	}
	switch {
	case kind == "application/json" || kind == "text/json" || strings.HasSuffix(kind, "+json"):
		return r.NewJSON(false), nil
	case kind == "application/x-ndjson" || kind == "application/ndjson" || kind == "application/jsonl" || kind == "application/x-jsonlines":
		return r.NewJSON(true), nil
	case r.paths != nil: // in nothing else a path leads anywhere
		return nil, fmt.Errorf("content type %s has no paths: %w", kind, ErrType)
	case kind == "text/csv" && parameters["header"] != "absent":
		return r.newTable(','), nil
	case kind == "text/tab-separated-values":
		return r.newTable('\t'), nil
	case kind == "application/x-www-form-urlencoded":
		return r.newForm(), nil
	case r.Fields():
		return nil, fmt.Errorf("content type %s has no fields: %w", kind, ErrType)
	case textual(kind):
		return &plain{set: r.set, stream: stream(r.set)}, nil
	}
	return nil, fmt.Errorf("content type %s: %w", kind, ErrType)
}

// Text is one text, of a header say, with the mask of a field of that name, and else of what is
// detected in it.
func (r *Rule) Text(name, text string) string {
	w := r.names[fold(name)]
	if w == nil && r.set != nil && r.set.NamesSecret([]byte(name)) {
		w = r.set.Writer(detect.Password)
	}
	switch {
	case w != nil:
		return string(w.AppendMasked(nil, []byte(text)))
	case r.set != nil:
		shown, _ := r.set.AppendMasked(nil, []byte(text))
		return string(shown)
	}
	return text
}

// Streams reports whether a body is of a form that has no end in sight, lines or text say, so that
// nobody can wait for any of it.
func Streams(m Masker) bool {
	switch m := m.(type) {
	case *plain:
		return true
	case *JSON:
		return m.many
	}
	return false
}

// textual reports whether a type is text in which secrets can be looked for.
func textual(kind string) bool {
	return strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+xml") || strings.HasSuffix(kind, "+yaml") ||
		kind == "application/xml" || kind == "application/yaml" || kind == "application/x-yaml" || kind == "application/javascript"
}

func stream(set *detect.Set) *detect.Stream {
	if set == nil {
		return nil
	}
	return set.NewStream()
}

// plain masks text.
type plain struct {
	set    *detect.Set
	stream *detect.Stream
}

func (p *plain) Append(dst, chunk []byte) ([]byte, error) {
	if p.set == nil {
		return append(dst, chunk...), nil
	}
	return p.stream.Append(dst, chunk), nil
}

func (p *plain) Close(dst []byte) ([]byte, error) {
	if p.set == nil {
		return dst, nil
	}
	return p.stream.Close(dst), nil
}
