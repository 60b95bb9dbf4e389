package authority

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
)

// record is a key as the store has it.
type record struct {
	Created     time.Time
	Signs       time.Time // from when on it signs; it is trusted before that
	Certificate []byte    `json:",omitempty"` // DER, of the CA
	Sealed      []byte    // PKCS #8, sealed to the key's own name

	private crypto.PrivateKey
}

// A use is what keys that follow each other are for.
type use struct {
	name string // as people call it
	// first is the name of the first key in the store; the names of its successors begin with it
	// and a hyphen. Where keys have successors by themselves, the first is named like them.
	first string
	// lead is how long a new key is usually trusted before it signs, and least how long at
	// the least. A former key is trusted for overlap after its successor signs.
	lead, least, overlap time.Duration
	// age is how long a key signs before it gets a successor by itself; 0 is for good.
	age  time.Duration
	make func() (crypto.Signer, error)
	ca   func() *x509.Certificate // of a CA of X.509: what it is like
	ssh  bool                     // a CA of SSH
}

// What a key that can be replaced is for.
const (
	UseNodes        = "nodes"            // the CA of control plane and nodes
	UseGrants       = "grants"           // signs grants
	UseIdentity     = "identity"         // signs tokens that tell resources who asks
	UseCertificates = "certificates"     // the CA of grant certificates
	UseSSH          = "ssh-certificates" // the CA of SSH grant certificates
	UseSSHHosts     = "ssh-hosts"        // the CA of nodes' SSH host keys
)

// peopleLead is for what people have copies of: they need a new one by then. Nodes fetch
// theirs at once.
const peopleLead = 30 * 24 * time.Hour

// uses are in the order in which they are told. What a CA of nodes signed has ended after
// the overlap; a grant is signed anew each time it is opened, and tokens live for minutes; a
// grant certificate can last as long as its CA.
var uses = []use{
	{name: UseNodes, first: "ca", lead: peopleLead, least: minCALead, overlap: 2 * nodeLifetime, make: p256, ca: houseCA},
	{name: UseGrants, first: "grant", lead: keyLead, overlap: keyAge, age: keyAge, make: edwards},
	{name: UseIdentity, first: "identity", lead: keyLead, overlap: keyAge, age: keyAge, make: p256}, // which every library for tokens verifies
	{name: UseCertificates, first: "client-ca", lead: keyLead, overlap: caLifetime, make: p256, ca: clientCA},
	{name: UseSSH, first: "ssh-user-ca", lead: keyLead, overlap: caLifetime, make: edwards, ssh: true},
	{name: UseSSHHosts, first: "ssh-host-ca", lead: peopleLead, overlap: 2 * nodeLifetime, make: edwards, ssh: true},
}

func p256() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func edwards() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

func (u *use) has(name string) bool {
	return name == u.first || strings.HasPrefix(name, u.first+"-")
}

// A signer is one key. It is immutable.
type signer struct {
	name           string
	revision       int64
	created, signs time.Time
	key            crypto.Signer
	cert           *x509.Certificate // of a CA of X.509
	ssh            ssh.Signer        // of a CA of SSH
}

// signing is the key of a use that signs now; a.mu is held.
func (a *Authority) signing(use string) *signer {
	now, all := a.cfg.Now(), a.keys[use]
	found := all[0]
	for _, s := range all {
		if !s.signs.After(now) {
			found = s
		}
	}
	return found
}

// current is the key of a use that signs now.
func (a *Authority) current(use string) *signer {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.signing(use)
}

// trusted are the keys of a use, the one that signs first.
func (a *Authority) trusted(use string) []*signer {
	a.mu.RLock()
	defer a.mu.RUnlock()
	now := a.signing(use)
	out := []*signer{now}
	for _, s := range a.keys[use] {
		if s != now {
			out = append(out, s)
		}
	}
	return out
}

// create stores a new key, which signs from then on.
func (a *Authority) create(ctx context.Context, u *use, name string, signs time.Time, e audit.Entry) error {
	key, err := u.make()
	if err != nil {
		return err
	}
	rec := record{Created: a.cfg.Now(), Signs: signs, private: key}
	if u.ca != nil {
		if rec.Certificate, err = newCA(u.ca(), key, rec.Created); err != nil {
			return err
		}
	}
	return a.write(ctx, store.Key{Kind: Kind, Name: name}, rec, e)
}

// id is how others know a key that has a successor by itself.
func (s *signer) id() string { return s.name[strings.LastIndexByte(s.name, '-')+1:] }

// successor is the name of a new key that is not the first.
func (u *use) successor() string {
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails
	return u.first + "-" + hex.EncodeToString(id[:])
}

// signer is what a record says.
func (u *use) signer(e store.Entry, rec record) (*signer, error) {
	s := &signer{name: e.Name, revision: e.Revision, created: rec.Created, signs: rec.Signs}
	var ok bool
	if s.key, ok = rec.private.(crypto.Signer); !ok {
		return nil, fmt.Errorf("%s signs nothing", e.Key)
	}
	if _, ok := rec.private.(ed25519.PrivateKey); u.name == UseGrants && !ok {
		return nil, fmt.Errorf("%s is not an Ed25519 key", e.Key)
	}
	var err error
	switch {
	case u.ca != nil:
		if s.cert, err = x509.ParseCertificate(rec.Certificate); err == nil && !samePublic(s.key.Public(), s.cert.PublicKey) {
			err = errors.New("the stored key is not that of the stored certificate")
		}
	case u.ssh:
		s.ssh, err = ssh.NewSignerFromSigner(s.key)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Key, err)
	}
	return s, nil
}

func aad(k store.Key) []byte { return []byte("postern/key/v1\x00" + k.Name) }

func (a *Authority) decode(ctx context.Context, e store.Entry) (record, error) {
	var rec record
	if err := json.Unmarshal(e.Value, &rec); err != nil {
		return record{}, fmt.Errorf("%s: %w", e.Key, err)
	}
	der, err := a.cfg.Keeper.Open(ctx, rec.Sealed, aad(e.Key))
	if err != nil {
		return record{}, fmt.Errorf("unseal %s: %w", e.Key, err)
	}
	defer clear(der)
	if rec.private, err = x509.ParsePKCS8PrivateKey(der); err != nil {
		return record{}, fmt.Errorf("%s: %w", e.Key, err)
	}
	return rec, nil
}

// write stores a key that must not exist yet; e says who made it, and how that is called.
func (a *Authority) write(ctx context.Context, k store.Key, rec record, e audit.Entry) error {
	der, err := x509.MarshalPKCS8PrivateKey(rec.private)
	if err != nil {
		return err
	}
	defer clear(der)
	if rec.Sealed, err = a.cfg.Keeper.Seal(ctx, der, aad(k)); err != nil {
		return fmt.Errorf("seal %s: %w", k, err)
	}
	value, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	e.Object, e.Outcome = k.String(), "ok"
	_, err = a.cfg.Audit.Commit(ctx, e, store.Op{Key: k, Value: value, If: 0})
	return err
}
