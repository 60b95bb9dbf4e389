package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zalando/go-keyring"
)

// ring is a keyring in memory. While locked it waits, as for a person.
type ring struct {
	mu     sync.Mutex
	keys   map[string]string
	asked  int
	broken error
	locked chan struct{}
}

func (r *ring) enter() error {
	if r.locked != nil {
		<-r.locked
	}
	r.asked++
	return r.broken
}

func (r *ring) Get(name string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enter(); err != nil {
		return "", err
	}
	if k, ok := r.keys[name]; ok {
		return k, nil
	}
	return "", keyring.ErrNotFound
}

func (r *ring) Set(name, secret string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.enter(); err != nil {
		return err
	}
	r.keys[name] = secret
	return nil
}

func (r *ring) Delete(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.keys, name)
	return r.enter()
}

// user is a run of the command for somebody with a keyring, or without.
func user(t *testing.T, home string, k Keyring, env map[string]string) (*app, *bytes.Buffer) {
	t.Helper()
	var said bytes.Buffer
	return &app{env: Env{Stderr: &said, Getenv: func(name string) string { return env[name] }, Keyring: k}, home: home, addr: "https://control.example"}, &said
}

var desktop = map[string]string{"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere"}

const secretText = "eyJ.secret.token"

func login() *tokens {
	return &tokens{Addr: "https://control.example", API: token{ID: secretText, Refresh: "refresh-me", Expires: time.Now().Add(time.Hour)}}
}

func TestLoginIsSealed(t *testing.T) {
	k := &ring{keys: map[string]string{}}
	home := t.TempDir()
	a, _ := user(t, home, k, desktop)
	for range 2 { // a login and its renewal: the key stays
		if err := a.saveTokens(t.Context(), login()); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(home, "tokens.json")
	b, err := os.ReadFile(file)
	if err != nil || bytes.Contains(b, []byte(secretText)) || bytes.Contains(b, []byte("refresh-me")) || !strings.Contains(a.where(), "keyring") {
		t.Errorf("the file has %s, %v; it is said to be in %s", b, err, a.where())
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	got, err := a.loadTokens(t.Context())
	if err != nil || got.API.ID != secretText || got.API.Refresh != "refresh-me" {
		t.Errorf("read %+v, %v", got, err)
	}
	// The file alone is of no use: elsewhere, without the keyring, or with another key.
	elsewhere := t.TempDir()
	if err := os.WriteFile(filepath.Join(elsewhere, "tokens.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	other := &ring{keys: map[string]string{}}
	for what, u := range map[string]*app{
		"another folder": func() *app {
			a, _ := user(t, elsewhere, &ring{keys: map[string]string{elsewhere: k.keys[home]}}, desktop)
			return a
		}(),
		"no keyring": func() *app { a, _ := user(t, home, nil, desktop); return a }(),
		"no bus":     func() *app { a, _ := user(t, home, k, nil); return a }(),
		"an empty":   func() *app { a, _ := user(t, home, other, desktop); return a }(),
		"another key": func() *app {
			a, _ := user(t, home, &ring{keys: map[string]string{home: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}, desktop)
			return a
		}(),
		"nonsense": func() *app { a, _ := user(t, home, &ring{keys: map[string]string{home: "!"}}, desktop); return a }(),
	} {
		var f failure
		if got, err := u.loadTokens(t.Context()); !errors.As(err, &f) || f.code != exitDenied || !strings.Contains(f.hint, "postern login") {
			t.Errorf("%s: read %+v, %v", what, got, err)
		}
	}
	if err := a.forgetTokens(t.Context()); err != nil || len(k.keys) != 0 {
		t.Errorf("%v, %d keys are left", err, len(k.keys))
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
	if err := a.forgetTokens(t.Context()); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// TestLoginInAFile: without a keyring that answers the login is in a file, and works.
func TestLoginInAFile(t *testing.T) {
	unlocked := make(chan struct{})
	t.Cleanup(func() { close(unlocked) })
	for what, c := range map[string]struct {
		ring *ring
		env  map[string]string
		says string
	}{
		"no session bus": {&ring{}, map[string]string{"XDG_RUNTIME_DIR": t.TempDir()}, "no session bus"},
		"turned off":     {&ring{}, map[string]string{"DBUS_SESSION_BUS_ADDRESS": "x", "POSTERN_KEYRING": "off"}, "POSTERN_KEYRING is off"},
		"no service":     {&ring{broken: errors.New("org.freedesktop.secrets was not provided")}, desktop, "not provided"},
		"never unlocked": {&ring{locked: unlocked}, desktop, "did not answer within 3s"},
	} {
		t.Run(what, func(t *testing.T) {
			a, said := user(t, t.TempDir(), c.ring, c.env)
			if err := a.saveTokens(t.Context(), login()); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(a.where(), c.says) {
				t.Errorf("says %q, want %q", a.where(), c.says)
			}
			if waited := strings.Contains(said.String(), "waiting for the keyring"); waited != (c.ring.locked != nil) {
				t.Errorf("said %q", said)
			}
			if got, err := a.loadTokens(t.Context()); err != nil || got.API.ID != secretText || !strings.Contains(a.where(), "only you can read") {
				t.Errorf("read %+v, %v, from %s", got, err, a.where())
			}
			if c.env["POSTERN_KEYRING"] == "off" && c.ring.asked > 0 {
				t.Error("the keyring was asked")
			}
		})
	}
	// Who gives up does not wait.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a, _ := user(t, t.TempDir(), &ring{locked: unlocked}, desktop)
	if _, err := a.ring(ctx, func(k Keyring) (string, error) { return k.Get("x") }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
