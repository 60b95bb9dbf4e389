package userapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
)

// Sizes of pages.
const (
	defaultPage = 100
	maxPage     = 1000
)

func pageSize(asked int32) (int, error) {
	switch {
	case asked < 0:
		return 0, fault.Invalid(fault.Violation{Field: "page_size", Reason: "is negative"})
	case asked == 0:
		return defaultPage, nil
	}
	return min(int(asked), maxPage), nil
}

const (
	pageVersion  = 1
	queryBytes   = 16
	maxPageToken = 2 * store.MaxNameBytes
)

// A page token says where the next page begins, and carries a hash of the query that it
// belongs to. It gives no right: whoever makes one up begins at another place of what
// they may read anyway.
func pageToken(query []byte, at string) string {
	raw := append([]byte{pageVersion}, query...)
	return base64.RawURLEncoding.EncodeToString(append(raw, at...))
}

// pageStart is the place in a token, which must be of the same query.
func pageStart(token string, query []byte) (string, error) {
	if token == "" {
		return "", nil
	}
	wrong := fault.Invalid(fault.Violation{Field: "page_token", Reason: "is not one that this query gave; begin without it"})
	if len(token) > maxPageToken || strings.ContainsAny(token, "\r\n") { // base64 would skip these
		return "", wrong
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) <= 1+queryBytes || raw[0] != pageVersion {
		return "", wrong
	}
	if !bytes.Equal(raw[1:1+queryBytes], query) {
		return "", wrong
	}
	return string(raw[1+queryBytes:]), nil
}

// queryHash is the same for equal queries only: every part is preceded by its length.
func queryHash(parts ...string) []byte {
	h := sha256.New()
	for _, p := range parts {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p)))) // a hash takes everything
		_, _ = h.Write([]byte(p))
	}
	return h.Sum(nil)[:queryBytes]
}

func labelParts(labels map[string]string) []string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k, labels[k])
	}
	return parts
}

func notFound(kind, name string) error {
	return fault.New(codes.NotFound, "there is no %s %q that you may read", kind, name)
}
