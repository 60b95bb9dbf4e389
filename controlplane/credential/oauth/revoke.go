package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A handle says when a token ends, and where it can be ended before; the ledger seals it.
type handle struct {
	End    time.Time `json:"end"`
	URL    string    `json:"url,omitempty"` // empty where the token ends by itself alone
	CA     string    `json:"ca,omitempty"`
	Secret string    `json:"secret,omitempty"`
	Token  []byte    `json:"token,omitempty"`
}

func (h *handle) bytes() ([]byte, error) { return json.Marshal(h) }

func parseHandle(b []byte) (handle, error) {
	var h handle
	if err := json.Unmarshal(b, &h); err != nil {
		return handle{}, errors.New("the handle of an access token is damaged") // the cause may quote it
	}
	return h, nil
}

// Renew says when the token ends: nothing makes it live longer.
func (s *Source) Renew(_ context.Context, handle []byte, _ time.Time) (time.Time, error) {
	h, err := parseHandle(handle)
	return h.End, err
}

// Revoke ends the token at its server, where that takes it. One that has ended already is
// not asked for.
func (s *Source) Revoke(ctx context.Context, handle []byte) error {
	h, err := parseHandle(handle)
	if err != nil || h.URL == "" || time.Now().After(h.End.Add(early)) {
		return err
	}
	defer clear(h.Token)
	id, key, err := s.client(ctx, h.Secret)
	if err != nil {
		return err
	}
	defer key.Wipe()
	client, err := clientOf(h.CA)
	if err != nil {
		return err
	}
	form := url.Values{"token": {string(h.Token)}, "token_type_hint": {"access_token"}}
	status, err := post(ctx, client, h.URL, form, func(r *http.Request) { r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(string(key.Reveal()))) })
	if err == nil && (status == http.StatusUnauthorized || status == http.StatusBadRequest) { // some servers read the client in the form alone
		form.Set("client_id", id)
		form.Set("client_secret", string(key.Reveal()))
		status, err = post(ctx, client, h.URL, form, func(*http.Request) {})
	}
	switch {
	case err != nil:
		return fmt.Errorf("revoke a token at %s: %w", h.URL, err)
	case status != http.StatusOK:
		return fmt.Errorf("revoke a token at %s: it answered %d", h.URL, status)
	}
	return nil
}

// post sends a form; what the answer says beside its status may quote a secret.
func post(ctx context.Context, client *http.Client, to string, form url.Values, as func(*http.Request)) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	as(r)
	resp, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, maxToken)
	return resp.StatusCode, resp.Body.Close()
}
