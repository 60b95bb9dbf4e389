// Package hook takes signed webhooks that tell of tickets and jobs: what is closed there
// ends the grants that are bound to it. A message counts once, in time, and only with the
// signature of its own hook.
package hook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/secret"
)

const (
	// Path is where hooks are; the name of one follows.
	Path = "/hooks/"
	// SecretKey is the field of a hook's Secret that signs.
	SecretKey = "value"

	// seenKind tells which messages have been taken, until they would be late anyway.
	seenKind = "hookseen"

	maxBodyBytes = 16 << 10
	maxTextBytes = 200
)

// Grants end with what they are bound to; *task.Service is one.
type Grants interface {
	Close(ctx context.Context, ref *typesv1.GrantReference, at time.Time, by audit.Entry, more ...store.Op) error
	Reopen(ctx context.Context, ref *typesv1.GrantReference, at time.Time, by audit.Entry, more ...store.Op) error
}

// Config is what a Service needs; everything but Now is required.
type Config struct {
	// Hooks are the names of Secrets by the names of hooks.
	Hooks map[string]string
	// Secret opens a Secret; the caller wipes nothing.
	Secret func(ctx context.Context, name string) (map[string]secret.Bytes, error)
	Grants Grants
	Store  store.Store
	Now    func() time.Time // time.Now where nil
	Logger *slog.Logger
}

// Service takes webhooks. It is safe for concurrent use, and by several replicas over one
// store.
type Service struct {
	cfg  Config
	gate *Gate
}

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg, gate: MessageGate()}
}

// message is what a hook tells.
type message struct {
	ID    string `json:"id"`    // of this message, new for each
	Event string `json:"event"` // closed or reopened
	Ref   string `json:"ref"`   // of the ticket or job
	// Time is when that came about, by which messages are ordered that overtake each other.
	// Who signs a message anew to send it again says it; else it is when it was signed.
	Time time.Time `json:"time"`
}

// ServeHTTP takes POST Path/NAME with a JSON object of id, event, ref and time, and the
// header Postern-Signature. It answers 204 once what follows from it is written down, and
// 409 where nothing does: the message was taken, or one that came about after it.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, err := s.take(w, r)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err != nil {
		s.cfg.Logger.WarnContext(r.Context(), "a webhook was refused", "path", r.URL.Path, "address", r.RemoteAddr, "status", status, "error", err)
		text := err.Error()
		if status == http.StatusInternalServerError || status == http.StatusServiceUnavailable {
			text = "the message could not be taken now; send it again"
		}
		http.Error(w, text, status)
		return
	}
	w.WriteHeader(status)
}

func (s *Service) take(w http.ResponseWriter, r *http.Request) (int, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return http.StatusMethodNotAllowed, errors.New("only POST")
	}
	if !s.gate.Allow(r, s.cfg.Now()) {
		return http.StatusTooManyRequests, errors.New("too many messages at this moment; send it again")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the message has more than %d bytes, or broke off", maxBodyBytes)
	}
	name := strings.TrimPrefix(r.URL.Path, Path)
	key, err := s.key(r.Context(), name)
	if err != nil {
		return http.StatusServiceUnavailable, err
	}
	signed, err := Verify(key, r.Header.Get(Header), s.cfg.Now(), body)
	if err != nil {
		return http.StatusUnauthorized, err
	}
	s.gate.Good(r)
	m, err := read(body, signed)
	if err != nil {
		return http.StatusBadRequest, err
	}
	return s.tell(r, name, m)
}

// key is what signs for a hook; none where there is no such hook, which nobody is told.
func (s *Service) key(ctx context.Context, name string) ([]byte, error) {
	of, ok := s.cfg.Hooks[name]
	if !ok {
		return nil, nil
	}
	fields, err := s.cfg.Secret(ctx, of)
	if err != nil {
		return nil, fmt.Errorf("secret %s of hook %s: %w", of, name, err)
	}
	return fields[SecretKey].Reveal(), nil
}

// read is the message of a body that was signed at an instant.
func read(body []byte, signed time.Time) (*message, error) {
	var m message
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil || d.More() {
		return nil, errors.New("the message is not one JSON object of id, event, ref and time")
	}
	for _, v := range []string{m.ID, m.Ref} {
		if v == "" || len(v) > maxTextBytes {
			return nil, fmt.Errorf("id and ref are required, with at most %d bytes each", maxTextBytes)
		}
	}
	if m.Event != "closed" && m.Event != "reopened" {
		return nil, fmt.Errorf("event is %.40q, and neither closed nor reopened", m.Event)
	}
	if m.Time.IsZero() {
		m.Time = signed
	}
	if m.Time.Sub(signed) >= tolerance {
		return nil, errors.New("time is after the message was signed")
	}
	return &m, nil
}

func (s *Service) tell(r *http.Request, name string, m *message) (int, error) {
	ctx := r.Context()
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(name), name, m.ID))
	seen := store.Key{Kind: seenKind, Name: hex.EncodeToString(sum[:])}
	if err := Sweep(ctx, s.cfg.Store, seenKind, s.cfg.Now()); err != nil {
		return http.StatusInternalServerError, err
	}
	once := Seen(seenKind, seen.Name, s.cfg.Now())
	ref := &typesv1.GrantReference{Hook: name, Ref: m.Ref}
	by := audit.Entry{Actor: "hook/" + name, Address: address(r)}
	do := s.cfg.Grants.Close
	if m.Event == "reopened" {
		do = s.cfg.Grants.Reopen
	}
	err := do(ctx, ref, m.Time, by, once)
	var conflict *store.ConflictError
	if errors.As(err, &conflict) && conflict.Key == seen {
		return http.StatusConflict, errors.New("a message with this id was taken already")
	}
	switch {
	case fault.CodeOf(err) == codes.Aborted:
		return http.StatusConflict, err
	case err != nil:
		return http.StatusInternalServerError, err
	}
	return http.StatusNoContent, nil
}

func address(r *http.Request) string {
	if h, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return h
	}
	return r.RemoteAddr
}
