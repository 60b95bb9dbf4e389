package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
)

func (a *app) rawKeyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "raw-key FILE", Short: "Make a key for what masks hide, and print its public half", Args: cobra.ExactArgs(1),
		Long: `FILE is made, and keeps the private half: what is recorded raw can be read with it alone, so keep
a copy where it cannot be lost, and give it to nobody but those who may read that. What is
printed belongs into the configuration of the control plane, as recordings.rawKey.`,
		Example: "  postern sessions raw-key raw.key",
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := secret.GenerateKey()
			if err != nil {
				return err
			}
			raw, err := key.Marshal()
			if err != nil {
				return err
			}
			defer raw.Wipe()
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(f, base64.StdEncoding.EncodeToString(raw.Reveal()))
			if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.env.Stdout, base64.StdEncoding.EncodeToString(key.PublicKey()))
			return err
		},
	}
}

// maxRawKey is how long a file with a raw key may be.
const maxRawKey = 1 << 10

func readRawKey(name string) (*secret.PrivateKey, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxRawKey {
		return nil, fmt.Errorf("%s is no raw key: it has %d bytes", name, info.Size())
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%s is no raw key, as postern sessions raw-key makes it", name)
	}
	defer clear(raw)
	key, err := secret.ParsePrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

// rawRecording opens the stream of what masks hid from a session, and its data key with
// the one of the raw keys that it is sealed to; without any it stays sealed.
func (a *app) rawRecording(ctx context.Context, id, purpose string, keys []string) (*recording, error) {
	known := map[string]*secret.PrivateKey{}
	for _, name := range keys {
		key, err := readRawKey(name)
		if err != nil {
			return nil, err
		}
		known[record.RecordingKeyID(key.PublicKey())] = key
	}
	r, err := a.chunksOf(ctx, &apiv1.ReadRecordingRequest{Id: id, Purpose: purpose, Raw: true})
	if err != nil || len(keys) == 0 {
		return r, err
	}
	if r.data, err = openRaw(r.stream.Msg().GetChunk(), known); err != nil {
		return nil, errors.Join(err, r.stream.Close())
	}
	return r, nil
}

// openRaw opens the data key of a raw recording, of which chunk is the first.
func openRaw(chunk []byte, keys map[string]*secret.PrivateKey) (*record.DataKey, error) {
	first, err := record.ParseChunk(chunk)
	if err != nil {
		return nil, err
	}
	key := keys[first.Key.ID]
	if key == nil {
		return nil, fmt.Errorf("what masks hid is sealed to the raw key %s, which none of the files has", first.Key.ID)
	}
	raw, err := first.Key.Unwrap(key, first.Session)
	if err != nil {
		return nil, err
	}
	defer raw.Wipe()
	return record.OpenDataKey(raw.Reveal())
}
