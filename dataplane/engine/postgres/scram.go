package postgres

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/wire"
)

// The SASL mechanisms of RFC 7677.
const (
	scramSHA256     = "SCRAM-SHA-256"
	scramSHA256Plus = "SCRAM-SHA-256-PLUS"
)

// maxIterations bounds the work that a target can ask for.
const maxIterations = 1 << 20

// scramLogin answers AuthenticationSASL, whose list of mechanisms is offered.
func scramLogin(in *inbox, c net.Conn, offered []byte, cred *engine.Credential, keys *keyCache) error {
	mechanism, header, binding, err := chooseMechanism(c, offered)
	if err != nil {
		return err
	}
	var nonce [18]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return fmt.Errorf("scram: %w", err)
	}
	s := &scram{header: header, binding: binding, nonce: base64.StdEncoding.EncodeToString(nonce[:])}
	defer func() { s.keys.Wipe() }()
	first := s.first()
	msg, at := begin(nil, 'p')
	msg = appendCString(msg, mechanism)
	msg = binary.BigEndian.AppendUint32(msg, uint32(len(first))) //nolint:gosec // short
	if _, err := c.Write(end(append(msg, first...), at)); err != nil {
		return err
	}
	server, err := readSASL(in, 11)
	if err != nil {
		return err
	}
	final, err := s.final(server, cred.Password.Reveal(), keys)
	if err != nil {
		return err
	}
	msg, at = begin(nil, 'p')
	if _, err := c.Write(end(append(msg, final...), at)); err != nil {
		return err
	}
	if server, err = readSASL(in, 12); err != nil {
		return err
	}
	return s.verify(server)
}

func readSASL(in *inbox, want uint32) ([]byte, error) {
	typ, body, err := in.next()
	if err != nil {
		return nil, err
	}
	if typ == 'E' {
		return nil, targetError(body)
	}
	r := wire.Read(body)
	if got := r.Uint32(); typ != 'R' || got != want {
		return nil, fmt.Errorf("scram: the resource sent message %q (%d)", typ, got)
	}
	return r.Rest(), nil
}

// chooseMechanism takes channel binding wherever both sides can; header is the GS2
// header that says so.
func chooseMechanism(c net.Conn, offered []byte) (mechanism, header string, binding []byte, err error) {
	var plain, plus bool
	for r := wire.Read(offered); ; {
		m := r.CString()
		if len(m) == 0 {
			break
		}
		plain = plain || string(m) == scramSHA256
		plus = plus || string(m) == scramSHA256Plus
	}
	tc, encrypted := c.(*tls.Conn)
	if encrypted {
		if binding, err = endPoint(tc.ConnectionState().PeerCertificates); err != nil {
			return "", "", nil, err
		}
	}
	switch {
	case plus && binding != nil:
		return scramSHA256Plus, "p=tls-server-end-point,,", binding, nil
	case plain && binding != nil:
		return scramSHA256, "y,,", nil, nil // we could; the target says that it cannot
	case plain:
		return scramSHA256, "n,,", nil, nil
	}
	return "", "", nil, errors.New("scram: the resource offers no mechanism that is supported")
}

// endPoint is the tls-server-end-point binding of RFC 5929, or nil where the
// certificate's signature has no hash that it defines.
func endPoint(chain []*x509.Certificate) ([]byte, error) {
	if len(chain) == 0 {
		return nil, errors.New("scram: the resource sent no certificate")
	}
	var h crypto.Hash
	switch chain[0].SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.ECDSAWithSHA256, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.MD5WithRSA:
		h = crypto.SHA256
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		h = crypto.SHA384
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		h = crypto.SHA512
	default:
		return nil, nil
	}
	d := h.New()
	d.Write(chain[0].Raw)
	return d.Sum(nil), nil
}

// scram is the client's side of one exchange of RFC 5802 with SHA-256.
type scram struct {
	header  string
	binding []byte
	nonce   string
	bare    string // client-first-message-bare; the user is in the startup packet
	auth    []byte // AuthMessage
	keys    scramKeys
}

func (s *scram) first() []byte {
	s.bare = "n=,r=" + s.nonce
	return []byte(s.header + s.bare)
}

// final answers the server-first-message.
func (s *scram) final(server, password []byte, keys *keyCache) ([]byte, error) {
	parts := bytes.Split(server, []byte(","))
	if len(parts) < 3 {
		return nil, errors.New("scram: malformed challenge")
	}
	r, ok1 := bytes.CutPrefix(parts[0], []byte("r="))
	salt64, ok2 := bytes.CutPrefix(parts[1], []byte("s="))
	count, ok3 := bytes.CutPrefix(parts[2], []byte("i="))
	if !ok1 || !ok2 || !ok3 || !bytes.HasPrefix(r, []byte(s.nonce)) || len(r) <= len(s.nonce) {
		return nil, errors.New("scram: malformed challenge")
	}
	salt, err := base64.StdEncoding.DecodeString(string(salt64))
	if err != nil || len(salt) == 0 {
		return nil, errors.New("scram: malformed salt")
	}
	iterations, err := strconv.Atoi(string(count))
	if err != nil || iterations < 1 || iterations > maxIterations {
		return nil, fmt.Errorf("scram: the resource asks for %q iterations", count)
	}
	s.keys = keys.keys(password, salt, iterations)

	channel := base64.StdEncoding.EncodeToString(append([]byte(s.header), s.binding...))
	without := "c=" + channel + ",r=" + string(r)
	s.auth = []byte(s.bare + "," + string(server) + "," + without)
	stored := sha256.Sum256(s.keys.client())
	proof := mac(stored[:], s.auth)
	subtle.XORBytes(proof, proof, s.keys.client())
	return []byte(without + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// verify checks that the server knows the password too.
func (s *scram) verify(server []byte) error {
	got, ok := bytes.CutPrefix(server, []byte("v="))
	if !ok {
		return errors.New("scram: the resource refused the proof")
	}
	if i := bytes.IndexByte(got, ','); i >= 0 {
		got = got[:i]
	}
	signature, err := base64.StdEncoding.DecodeString(string(got))
	if err != nil || !hmac.Equal(signature, mac(s.keys.server(), s.auth)) {
		return errors.New("scram: the resource does not know the password")
	}
	return nil
}
