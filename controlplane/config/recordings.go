package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/posterngate/postern/pkg/conf"
	"github.com/posterngate/postern/pkg/secret"
)

// Recordings says where recordings are kept.
type Recordings struct {
	// Keep is how long recordings are kept, from the day on which they began; for ever
	// where empty. Those that are held stay longer. What went stands in the audit log. None goes
	// by a clock that has not gone on steadily for a day.
	Keep conf.Duration `json:"keep"`
	// LostAfter is how long a node may be silent before what it has not shipped is given up,
	// and its recordings end as truncated; 24h where empty. What comes later is taken still.
	LostAfter conf.Duration `json:"lostAfter"`
	// ExportFile is where what was recorded, and the audit log, is appended as lines of JSON,
	// for a SIEM to follow; package controlplane/recording/export describes them. Of several
	// replicas one tells of the audit log. It may be moved away at any time. Where it cannot be written, nodes keep what they have and send it again.
	ExportFile string `json:"exportFile"`
	// ExportOTLP is where the same is sent as OpenTelemetry logs over gRPC, such as
	// https://collector:4317; in clear (http) it must be this machine. While nobody takes
	// them, nodes keep what they have, until they are full.
	ExportOTLP string `json:"exportOTLP"`
	// ExportOTLPCA is a file with the CA certificates for that; the system's where empty.
	ExportOTLPCA string `json:"exportOTLPCA"`
	// RawKey is the public half of the key to which recordings of what masks hide are sealed,
	// as postern sessions raw-key prints it. The other half belongs to those who may read
	// them, and never here. Without it no task may ask for such (spec.record.storeRaw).
	RawKey string `json:"rawKey"`
	// S3 is a bucket for the recordings; left out, they are files in DataDir. Several
	// replicas need one that they share.
	S3 *S3 `json:"s3"`
	// Postgres is a database for the index of the recordings; left out, it is a file in
	// DataDir. Several replicas need one that they share.
	Postgres *Postgres `json:"postgres"`
}

// Postgres is a database, which must exist, and a user who owns it.
type Postgres struct {
	// URL such as postgres://postern@db.internal/postern?sslmode=verify-full&sslrootcert=/etc/postern/db-ca.pem;
	// without a password.
	URL string `json:"url"`
	// PasswordFile holds the password.
	PasswordFile string `json:"passwordFile"`
	// Connections at most; 8 where empty.
	Connections conf.Count `json:"connections"`
}

// S3 is a bucket of Amazon S3 or of a store that speaks its API with conditional writes.
type S3 struct {
	// Bucket must exist.
	Bucket string `json:"bucket"`
	// Prefix stands before all names, such as "postern/".
	Prefix string `json:"prefix"`
	// Region of the bucket; as AWS's own configuration says where empty.
	Region string `json:"region"`
	// Endpoint is the URL of a store that is not AWS.
	Endpoint string `json:"endpoint"`
	// CA is a PEM file that signs the endpoint's certificate; the system's where empty.
	CA string `json:"ca"`
	// CredentialsFile is in the form of AWS's shared credentials file; AWS's own chain
	// (environment, files, the role of the machine) where empty.
	CredentialsFile string `json:"credentialsFile"`
	// Retention is how long the store itself keeps each object against everybody: object
	// lock in compliance mode, which the bucket must allow. None where empty.
	Retention conf.Duration `json:"retention"`
}

// RawPublic is RawKey as bytes; empty where there is none.
func (r *Recordings) RawPublic() []byte {
	b, _ := base64.StdEncoding.DecodeString(r.RawKey) // checked
	return b
}

func (r *Recordings) check() error {
	if b, err := base64.StdEncoding.DecodeString(r.RawKey); err != nil || r.RawKey != "" && secret.CheckPublicKey(b) != nil {
		return errors.New("recordings.rawKey is no key as postern sessions raw-key prints it")
	}
	if keep := time.Duration(r.Keep); keep != 0 && keep < minKeep {
		return fmt.Errorf("recordings.keep: %s is shorter than %s", keep, minKeep)
	}
	switch lost := time.Duration(r.LostAfter); {
	case lost == 0:
		r.LostAfter = defaultLostAfter
	case lost < minLostAfter:
		return fmt.Errorf("recordings.lostAfter: %s is shorter than %s", lost, minLostAfter)
	}
	if p := r.Postgres; p != nil {
		u, err := url.Parse(p.URL)
		switch {
		case err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Host == "":
			return errors.New("recordings.postgres.url is not a URL such as postgres://user@host/database")
		case u.User != nil && hasPassword(u.User) || u.Query().Has("password"):
			return errors.New("recordings.postgres.url has a password, which belongs into passwordFile")
		}
	}
	if r.S3 == nil {
		return nil
	}
	switch s := r.S3; {
	case s.Bucket == "":
		return errors.New("recordings.s3.bucket is missing")
	case s.Prefix != "" && (!strings.HasSuffix(s.Prefix, "/") || strings.HasPrefix(s.Prefix, "/")):
		return fmt.Errorf("recordings.s3.prefix: %q must end with a slash, and not begin with one", s.Prefix)
	case r.Keep > 0 && s.Retention > r.Keep:
		return fmt.Errorf("recordings.s3.retention: %s is longer than recordings.keep, and nothing could be let go after %s", time.Duration(s.Retention), time.Duration(r.Keep))
	case s.Endpoint != "":
		if u, err := url.Parse(s.Endpoint); err != nil || u.Host == "" {
			return fmt.Errorf("recordings.s3.endpoint: %q is not a URL", s.Endpoint)
		}
	}
	return nil
}

func hasPassword(u *url.Userinfo) bool {
	_, has := u.Password()
	return has
}

// minKeep is longer than any session, which must have ended before it can go.
const minKeep = 24 * time.Hour

const (
	defaultLostAfter = conf.Duration(24 * time.Hour)
	minLostAfter     = time.Minute // longer than a restart
)
