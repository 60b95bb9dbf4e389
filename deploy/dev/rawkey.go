package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/posterngate/postern/pkg/secret"
)

// rawKey is the public half of the key to what masks hide, whose private half is kept in
// the folder, as its owner would keep it elsewhere.
func (h *house) rawKey() (string, error) {
	file := filepath.Join(h.dir, "raw.key")
	text, err := os.ReadFile(file)
	var key *secret.PrivateKey
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if key, err = secret.GenerateKey(); err != nil {
			return "", err
		}
		raw, err := key.Marshal()
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(raw.Reveal())+"\n"), 0o600); err != nil {
			return "", err
		}
	case err != nil:
		return "", err
	default:
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
		if key, err = secret.ParsePrivateKey(raw); err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
	}
	return base64.StdEncoding.EncodeToString(key.PublicKey()), nil
}
