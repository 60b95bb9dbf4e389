package vault

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
)

// bare leaves of an answer with an error nothing but what Vault says is wrong: the client
// library quotes what it cannot read, errors are logged, and beside them may stand a token.
type bare struct{ next http.RoundTripper }

func (b bare) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err != nil || resp.StatusCode < http.StatusBadRequest {
		return resp, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxFile))
	if err != nil {
		return nil, err
	}
	var said struct {
		Errors []string `json:"errors"`
	}
	switch err := json.Unmarshal(text, &said); {
	case err != nil:
		said.Errors = []string{"the answer is not one of Vault's"}
		fallthrough
	case resp.StatusCode != http.StatusNotFound: // which says besides what was there before
		if text, err = json.Marshal(said); err != nil {
			return nil, err
		}
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return resp, nil
}
