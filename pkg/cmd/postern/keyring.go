package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/posterngate/postern/pkg/run"
)

// A Keyring keeps small secrets for the user who is signed in to the machine. Its calls
// may wait for a person who unlocks it.
type Keyring interface {
	Get(name string) (string, error)
	Set(name, secret string) error
	Delete(name string) error
}

// osKeyring is that of the operating system.
type osKeyring struct{}

const ringService = "postern"

func (osKeyring) Get(name string) (string, error) { return keyring.Get(ringService, name) }
func (osKeyring) Set(name, secret string) error   { return keyring.Set(ringService, name, secret) }
func (osKeyring) Delete(name string) error        { return keyring.Delete(ringService, name) }

const (
	// ringWait is how long a keyring may take where nobody can be asked to unlock it,
	// and ringPatience where somebody can.
	ringWait     = 3 * time.Second
	ringPatience = time.Minute
	// ringNotice is when a person is told what is waited for.
	ringNotice = time.Second
)

// errNoRing says that there is no keyring to ask.
var errNoRing = errors.New("there is no keyring here")

// ringThere says why the keyring is not to be asked, or nil. Where there is no session
// bus, asking would start one, or wait.
func (a *app) ringThere() error {
	switch {
	case a.env.Keyring == nil:
		return errNoRing
	case a.env.Getenv("POSTERN_KEYRING") == "off":
		return errors.New("POSTERN_KEYRING is off")
	case runtime.GOOS == "darwin" || runtime.GOOS == "windows" || a.env.Getenv("DBUS_SESSION_BUS_ADDRESS") != "":
		return nil
	}
	if dir := a.env.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		if _, err := os.Stat(filepath.Join(dir, "bus")); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: no session bus", errNoRing)
}

// ring asks the keyring. A call that does not return in time is left behind, for it
// cannot be called off, and ends with the command.
func (a *app) ring(ctx context.Context, fn func(k Keyring) (string, error)) (string, error) {
	if err := a.ringThere(); err != nil {
		return "", err
	}
	type answer struct {
		secret string
		err    error
	}
	got := make(chan answer, 1)
	run.New(ctx).Go("keyring", func(context.Context) error {
		secret, err := fn(a.env.Keyring)
		got <- answer{secret, err}
		return nil
	})
	wait := ringWait
	if runtime.GOOS == "darwin" || runtime.GOOS == "windows" || a.env.Getenv("DISPLAY") != "" || a.env.Getenv("WAYLAND_DISPLAY") != "" {
		wait = ringPatience
	}
	late, notice := time.NewTimer(wait), time.NewTimer(ringNotice)
	defer late.Stop()
	defer notice.Stop()
	for {
		select {
		case r := <-got:
			return r.secret, r.err
		case <-notice.C:
			a.say("waiting for the keyring, for at most %s (POSTERN_KEYRING=off keeps the login in a file)", wait)
		case <-late.C:
			return "", fmt.Errorf("the keyring did not answer within %s", wait)
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// ringName is what the key of this folder's login is called in the keyring.
func (a *app) ringName() string {
	if dir, err := filepath.Abs(a.home); err == nil {
		return dir
	}
	return a.home
}

// ringKey is the key that seals the login's file; where there is none yet, make makes
// it. Only a key is kept there, for keyrings of some systems take no more than two
// kilobytes.
func (a *app) ringKey(ctx context.Context, make bool) (cipher.AEAD, error) {
	text, err := a.ring(ctx, func(k Keyring) (string, error) {
		text, err := k.Get(a.ringName())
		if !make || !errors.Is(err, keyring.ErrNotFound) {
			return text, err
		}
		var key [32]byte
		_, _ = rand.Read(key[:]) // never fails
		text = base64.StdEncoding.EncodeToString(key[:])
		return text, k.Set(a.ringName(), text)
	})
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("what the keyring has is not our key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("what the keyring has is not our key: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}
