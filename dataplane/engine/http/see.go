package http

import (
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/posterngate/postern/pkg/postern"
)

// meets says whether the masks of a decision can be kept in the answer.
func (x *exchange) meets(d *postern.Decision) error {
	masked := false
	for _, o := range d.Obligations {
		if o.Table != nil || o.Programs != nil {
			return errors.New("a request has no tables and no programs")
		}
		masked = masked || o.Content != nil
	}
	if masked {
		return errors.New("bodies are not masked yet")
	}
	return nil
}

// see is the body of an answer as the client may see it; h is changed to fit.
func (x *exchange) see(resp *http.Response, h http.Header, secrets [][]byte) (io.Reader, error) {
	if resp.ContentLength >= 0 {
		h.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	if len(secrets) > 0 && resp.Header.Get("Content-Encoding") == "" {
		return &catcher{from: resp.Body, secrets: secrets}, nil
	}
	return resp.Body, nil
}
