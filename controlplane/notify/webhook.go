package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/posterngate/postern/controlplane/hook"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/secret"
)

// Webhook is an address that is told by signed messages. Its Secret has the field value.
type Webhook struct {
	URL string
	TLS *tls.Config // nil where the system's CAs will do

	client *http.Client
}

// webhook sends what became of a hold. The receiver knows a message that comes twice by
// its Idempotency-Key, one of somebody else by its signature, and a replayed one by the
// time that is signed. A hold can come to the same event again when its rule changes: after
// is the revision of what the receiver was told before.
func (s *Service) webhook(ctx context.Context, w *Webhook, fields map[string]secret.Bytes, h *typesv1.Hold, event string, after int64) error {
	key := fields[hook.SecretKey].Reveal()
	if len(key) < hook.MinKeyBytes {
		return fmt.Errorf("the field %s of its secret is missing, or shorter than %d bytes", hook.SecretKey, hook.MinKeyBytes)
	}
	shown, err := protojson.Marshal(h)
	if err != nil {
		return err
	}
	id := fmt.Sprintf("%s/%s/%d", h.GetId(), event, after)
	body, err := json.Marshal(struct {
		ID    string          `json:"id"`
		Event string          `json:"event"`
		URL   string          `json:"url"`
		Time  time.Time       `json:"time"`
		Hold  json.RawMessage `json:"hold"`
	}{id, event, s.cfg.Holds.URL(h.GetId()), s.cfg.Now().UTC(), shown})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", id)
	req.Header.Set(hook.Header, hook.Sign(key, s.cfg.Now(), body))
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswerBytes)
	if resp.StatusCode/100 != 2 {
		return errors.New("it answered " + resp.Status)
	}
	return nil
}
