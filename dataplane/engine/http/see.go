package http

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/content"
	"github.com/posterngate/postern/pkg/postern"
)

// meets says whether the masks of a decision can be kept in an answer, and keeps them, and
// what is judged by itself, with the analysis, which is not shared yet.
func meets(an engine.Analysis, d *postern.Decision) error {
	a := an.(*analysis)
	for _, o := range d.Obligations {
		switch {
		case o.Content != nil:
			rule, err := content.Compile(o.Content)
			if err != nil {
				return err
			}
			a.masks = rule
		case o.MCP != nil:
			a.messages = o.MCP
		default:
			return errors.New("a request has only its answer to mask")
		}
	}
	return nil
}

// tells are headers that say something of the body as it was before it was masked.
var tells = []string{
	"Content-Length", "Content-Encoding", "Content-Range", "Accept-Ranges", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest", "Etag", "Signature", "X-Checksum",
	"X-Amz-Checksum-Crc32", "X-Amz-Checksum-Crc32c", "X-Amz-Checksum-Crc64nvme", "X-Amz-Checksum-Sha1", "X-Amz-Checksum-Sha256", "X-Goog-Hash", "X-Ms-Blob-Content-Md5",
}

// untell takes them out.
func untell(h http.Header) {
	for _, name := range tells {
		h.Del(name)
	}
}

// working are headers by which HTTP works, whatever fields of bodies are called.
var working = []string{"Age", "Allow", "Content-Location", "Content-Type", "Date", "Expires", "Link", "Location", "Server", "Vary"}

// veil masks, in what stands before and behind a body, what has a name that is masked, and what
// looks like something that is. What a client is to say again stays: cookies, and a session's name.
func (x *exchange) veil(h http.Header) {
	if x.masks == nil {
		return
	}
	for name, values := range h {
		if name == "Set-Cookie" || name == sessionHeader {
			continue
		}
		field := name
		if slices.Contains(working, name) {
			field = ""
		}
		shown := make([]string, len(values))
		for i, v := range values {
			shown[i] = x.masks.Text(field, v)
		}
		h[name] = shown
	}
}

// veiled are headers of a request as they are recorded: as those of its answer are shown.
func veiled(lines []string, masks *content.Rule) []string {
	if masks.Empty() {
		return lines
	}
	out := make([]string, len(lines))
	for i, line := range lines {
		name, v, _ := strings.Cut(line, ": ")
		out[i] = name + ": " + masks.Text(name, v)
	}
	return out
}

// see is the body of an answer as the client may see it; h is changed to fit.
func (x *exchange) see(resp *http.Response, h http.Header, secrets [][]byte) (io.Reader, error) {
	body := io.Reader(resp.Body)
	switch {
	case x.talk != nil:
		heard, err := x.hear(resp, h, secrets)
		if err != nil {
			return nil, err
		}
		body = heard
	case x.masks != nil:
		untell(h)
		if x.bodiless(resp) {
			return http.NoBody, nil
		}
		masked, err := x.masked(resp, secrets)
		if err != nil && resp.StatusCode >= http.StatusBadRequest {
			return x.blank(resp.StatusCode, h), nil
		}
		if err != nil {
			return nil, &postern.Refusal{
				Reason: fmt.Sprintf("the resource answered in a form in which the task's masks cannot be kept: %v", err), Rule: x.adm.Decision.Rule,
				Hint: "ask for another form, such as with Accept: application/json", Cause: err,
			}
		}
		body = masked
	case len(secrets) > 0 && partial(resp) && !stored(resp.Header) && !x.bodiless(resp):
		return nil, &postern.Refusal{
			Reason: "the resource answered with a part of what it makes for each request, in which its credential would not be seen",
			Hint:   "ask for the whole of it: without the header Range",
		}
	case hides(resp, secrets) && !x.bodiless(resp):
		plain, err := unpacked(resp)
		if err != nil {
			return nil, &postern.Refusal{
				Reason: fmt.Sprintf("the resource answered in a form in which its credential would not be seen: %v", err),
				Hint:   "tell its operators: it was asked for plain answers (such as with Accept-Encoding: identity)", Cause: err,
			}
		}
		untell(h)
		body, resp.ContentLength = plain, -1
	case resp.ContentLength >= 0:
		h.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	return catching(body, secrets), nil
}

// partial reports whether an answer is a part of something; some servers are asked for one by
// headers of their own.
func partial(resp *http.Response) bool {
	return resp.StatusCode == http.StatusPartialContent || resp.Header["Content-Range"] != nil && resp.StatusCode < http.StatusBadRequest
}

// stored reports whether an answer says of which version it is (RFC 9110, 8.8), as what is there for
// more than one request does. What quotes a request is made for it, and may be asked for in pieces
// of which none has the whole of a secret.
func stored(h http.Header) bool {
	tag := h.Get("Etag")
	return tag != "" && !strings.HasPrefix(tag, "W/") || h.Get("Last-Modified") != ""
}

// bodiless reports whether there is no body behind a head, whatever that says of it.
func (x *exchange) bodiless(resp *http.Response) bool {
	return x.facts.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified || resp.ContentLength == 0
}

// codings are headers that say how a body, or each message of it, is packed.
var codings = []string{"Content-Encoding", "Grpc-Encoding", "Connect-Content-Encoding"}

// hides reports whether secrets could stand in an answer unseen: packed, though it was asked
// for as it is.
func hides(resp *http.Response, secrets [][]byte) bool {
	return len(secrets) > 0 && slices.ContainsFunc(codings, func(name string) bool { return packed(resp, name) })
}

// packed reports whether a header of an answer says that something is packed.
func packed(resp *http.Response, name string) bool {
	return slices.ContainsFunc(resp.Header[name], func(v string) bool {
		v = strings.ToLower(strings.TrimSpace(v))
		return v != "" && v != "identity" && v != awsChunked // which some stores say of what they have taken apart
	})
}

// unpacked is the body of an answer as it is.
func unpacked(resp *http.Response) (io.Reader, error) {
	for _, name := range codings[1:] {
		if packed(resp, name) {
			return nil, fmt.Errorf("each message is packed (%s)", name)
		}
	}
	if resp.StatusCode == http.StatusPartialContent {
		return nil, errors.New("a part of what is packed cannot be unpacked")
	}
	_, coding, err := form(resp)
	if err != nil {
		return nil, err
	}
	return content.Unpack(resp.Body, coding)
}

// form is what an answer says that its body is. Where it says that twice, two clients may read
// it in two ways, of which masks see one.
func form(resp *http.Response) (kind, coding string, err error) {
	for _, name := range []string{"Content-Type", "Content-Encoding"} {
		if len(resp.Header.Values(name)) > 1 {
			return "", "", fmt.Errorf("the header %s stands twice", name)
		}
	}
	return resp.Header.Get("Content-Type"), resp.Header.Get("Content-Encoding"), nil
}

// blank stands in the place of an error page that may quote anything.
func (x *exchange) blank(status int, h http.Header) io.Reader {
	h.Set("Content-Type", "text/plain; charset=utf-8")
	return strings.NewReader(fmt.Sprintf("postern: the resource answered %d %s, with a page that is not shown because it cannot be masked\n", status, http.StatusText(status)))
}
