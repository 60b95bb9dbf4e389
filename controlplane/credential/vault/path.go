package vault

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/posterngate/postern/pkg/conf"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// checkAddress refuses plain HTTP to anywhere but this machine.
func checkAddress(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil {
		return fmt.Errorf("vault: address %q is not a URL such as https://vault:8200", address)
	}
	if u.Scheme == "https" {
		return nil
	}
	if u.Scheme == "http" && conf.Loopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("vault: address %q: secrets are asked for over https only", address)
}

// checkPath takes what names one place: segments of letters, digits, "-", "_", "." and
// spaces, none of them empty, "." or "..".
func checkPath(path string) error {
	for seg := range strings.SplitSeq(path, "/") {
		if seg == "" || seg == "." || seg == ".." {
			return fmt.Errorf("%q is not a path in Vault", path)
		}
		for _, r := range seg {
			if r > '~' || r < ' ' || strings.ContainsRune(`?#%\*+`, r) {
				return fmt.Errorf("%q is not a path in Vault", path)
			}
		}
	}
	return nil
}

// engine is what stands behind a reference.
type engine int

const (
	database engine = iota // a user is made for the lease
	kv                     // a login that stands there
	static                 // a user that stands there, whose password Vault changes
	sshCA                  // certifies a key that is made for the lease
)

// locate is the path to read, for a reference.
func locate(ref *typesv1.VaultRef) (path string, e engine, err error) {
	named := 0
	for _, way := range []struct {
		name, below string
		engine      engine
	}{{ref.GetRole(), "/creds/", database}, {ref.GetPath(), "/data/", kv}, {ref.GetSshRole(), "/sign/", sshCA}, {ref.GetStaticRole(), "/static-creds/", static}} {
		if way.name != "" {
			path, e = ref.GetMount()+way.below+way.name, way.engine
			named++
		}
	}
	if named != 1 {
		return "", 0, fmt.Errorf("a vault reference names a role or a path, a static role or an SSH role: just one of them")
	}
	return path, e, checkPath(path)
}
