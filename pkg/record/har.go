package record

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/posterngate/postern/pkg/postern"
)

// errNoRequests is a recording of another protocol than HTTP.
var errNoRequests = errors.New("nothing in this recording was asked by HTTP: export it as JSON lines")

// HAR writes the requests of a session and their answers as an HTTP Archive (version 1.2),
// which browsers and proxies show. Bodies are what was recorded of them: bounded, and as
// the client got them. What was denied has status 0, and why as its comment. It ends at the
// first error of events or w.
func HAR(w io.Writer, release string, events iter.Seq2[*Event, error]) error {
	h := &archive{w: w, open: map[uint64]*harEntry{}}
	for e, err := range events {
		if err == nil {
			err = h.event(release, e)
		}
		if err != nil {
			return err
		}
	}
	if !h.began {
		return errNoRequests
	}
	for _, n := range sortedKeys(h.open) { // what was under way at the end
		h.open[n].Comment = strings.TrimSpace(h.open[n].Comment + " the recording ends before the answer does")
		if err := h.put(h.open[n]); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "\n]}}\n")
	return err
}

func sortedKeys(m map[uint64]*harEntry) []uint64 {
	keys := make([]uint64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// archive is one being written.
type archive struct {
	w        io.Writer
	began    bool
	some     bool // an entry is written
	resource postern.ResourceName
	open     map[uint64]*harEntry
}

type harEntry struct {
	Started  string      `json:"startedDateTime"`
	Time     float64     `json:"time"` // ms
	Request  harRequest  `json:"request"`
	Response harResponse `json:"response"`
	Cache    struct{}    `json:"cache"`
	Timings  harTimings  `json:"timings"`
	Comment  string      `json:"comment,omitempty"`
	Rule     string      `json:"_rule,omitempty"`

	began, answered time.Duration
	asked, said     []byte
}

type harTimings struct {
	Send    float64 `json:"send"`
	Wait    float64 `json:"wait"`
	Receive float64 `json:"receive"`
}

type harPair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type harRequest struct {
	Method      string    `json:"method"`
	URL         string    `json:"url"`
	Version     string    `json:"httpVersion"`
	Cookies     []harPair `json:"cookies"`
	Headers     []harPair `json:"headers"`
	Query       []harPair `json:"queryString"`
	Post        *harBody  `json:"postData,omitempty"`
	HeadersSize int       `json:"headersSize"`
	BodySize    int64     `json:"bodySize"`
}

type harResponse struct {
	Status      int       `json:"status"`
	StatusText  string    `json:"statusText"`
	Version     string    `json:"httpVersion"`
	Cookies     []harPair `json:"cookies"`
	Headers     []harPair `json:"headers"`
	Content     harBody   `json:"content"`
	Redirect    string    `json:"redirectURL"`
	HeadersSize int       `json:"headersSize"`
	BodySize    int64     `json:"bodySize"`
}

type harBody struct {
	Size     int64  `json:"size"`
	Type     string `json:"mimeType"`
	Text     string `json:"text,omitempty"`
	Encoding string `json:"encoding,omitempty"`
	Comment  string `json:"comment,omitempty"`
}

func (h *archive) event(release string, e *Event) error {
	switch e.Kind {
	case KindOpened:
		return h.begin(release, e)
	case KindIntent:
		h.open[e.Statement] = h.entry(e)
	case KindDenied:
		x := h.entry(e)
		x.Comment = "denied: " + e.Reason
		return h.put(x)
	case KindChunk:
		if x := h.open[e.Statement]; x != nil {
			x.chunk(e)
		}
	case KindFinished:
		if x := h.open[e.Statement]; x != nil {
			delete(h.open, e.Statement)
			x.finish(e)
			return h.put(x)
		}
	}
	return nil
}

func (h *archive) begin(release string, e *Event) error {
	s := e.Session
	if s == nil || s.Protocol != postern.HTTP {
		return errNoRequests
	}
	h.began, h.resource = true, s.Resource
	creator, err := json.Marshal(map[string]string{"name": "postern", "version": release})
	if err != nil {
		return err
	}
	comment, err := json.Marshal(fmt.Sprintf("%s on %s by %s, session %s", s.Task, s.Resource, s.Subject, s.ID))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(h.w, `{"log":{"version":"1.2","creator":%s,"comment":%s,"entries":[`, creator, comment)
	return err
}

// put writes an entry.
func (h *archive) put(x *harEntry) error {
	if !h.began {
		return errNoRequests
	}
	x.Request.Post = bodyOf(x.asked, x.Request.BodySize, headerOf(x.Request.Headers, "content-type"))
	if content := bodyOf(x.said, x.Response.BodySize, headerOf(x.Response.Headers, "content-type")); content != nil {
		x.Response.Content = *content
	}
	x.Response.Redirect = headerOf(x.Response.Headers, "location")
	b, err := json.Marshal(x)
	if err != nil {
		return err
	}
	comma := ",\n"
	if !h.some {
		comma = "\n"
	}
	h.some = true
	_, err = h.w.Write(append([]byte(comma), b...))
	return err
}

// headerLine is how headers stand among what was recorded beside a statement.
var headerLine = regexp.MustCompile("^([!#$%&'*+.^_`|~0-9a-z-]+): (.*)$")

func (h *archive) entry(e *Event) *harEntry {
	method, target, _ := strings.Cut(e.Text, " ")
	x := &harEntry{
		Started: e.Time.UTC().Format("2006-01-02T15:04:05.000Z"), began: e.Elapsed, Rule: e.Rule,
		Request: harRequest{
			Method: method, URL: "https://" + string(h.resource) + target, Cookies: []harPair{}, Headers: []harPair{}, Query: []harPair{}, HeadersSize: -1,
		},
		Response: harResponse{Cookies: []harPair{}, Headers: []harPair{}, HeadersSize: -1},
	}
	for _, p := range e.Params {
		if m := headerLine.FindStringSubmatch(p.Value); m != nil {
			x.Request.Headers = append(x.Request.Headers, harPair{m[1], m[2]})
		}
	}
	_, query, _ := strings.Cut(target, "?")
	for pair := range strings.SplitSeq(query, "&") {
		if name, value, _ := strings.Cut(pair, "="); name != "" {
			x.Request.Query = append(x.Request.Query, harPair{unescaped(name), unescaped(value)})
		}
	}
	return x
}

// unescaped is a part of a query as it reads: + is a space, and %XX a byte. What is no such
// byte stays as it stands.
func unescaped(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			out = append(out, ' ')
		case s[i] == '%' && i+2 < len(s):
			if b, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(b))
				i += 2
				continue
			}
			out = append(out, '%')
		default:
			out = append(out, s[i])
		}
	}
	return string(out)
}

func (x *harEntry) chunk(e *Event) {
	switch e.Tag {
	case "head":
		x.answered = e.Elapsed
		status, rest, _ := strings.Cut(string(e.Data), "\n")
		code, text, _ := strings.Cut(status, " ")
		x.Response.Status, _ = strconv.Atoi(code)
		x.Response.StatusText = text
		for line := range strings.Lines(rest) {
			if m := headerLine.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
				x.Response.Headers = append(x.Response.Headers, harPair{m[1], m[2]})
			}
		}
	case "asked":
		x.asked = append(x.asked, e.Data...)
		x.Request.BodySize += e.Bytes
	case "body":
		x.said = append(x.said, e.Data...)
		x.Response.BodySize += e.Bytes
	}
}

func (x *harEntry) finish(e *Event) {
	x.Time = ms(e.Duration)
	x.Timings.Wait = x.Time
	if wait := x.answered - x.began; x.answered > 0 && wait >= 0 && wait <= e.Duration {
		x.Timings.Wait, x.Timings.Receive = ms(wait), ms(e.Duration-wait)
	}
	if e.Bytes > x.Response.BodySize {
		x.Response.BodySize = e.Bytes // what was past the bound is only counted, both ways together
	}
	if e.Code != "" {
		x.Comment = strings.TrimSuffix(e.Code+": "+e.Message, ": ")
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func headerOf(all []harPair, name string) string {
	for _, p := range all {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// bodyOf is what was recorded of a body of size bytes; nil where there was none.
func bodyOf(b []byte, size int64, kind string) *harBody {
	if len(b) == 0 && size == 0 {
		return nil
	}
	out := &harBody{Size: size, Type: kind}
	if utf8.Valid(b) {
		out.Text = string(b)
	} else {
		out.Text, out.Encoding = base64.StdEncoding.EncodeToString(b), "base64"
	}
	if int64(len(b)) < size {
		out.Comment = fmt.Sprintf("%d bytes of it were recorded", len(b))
	}
	return out
}
