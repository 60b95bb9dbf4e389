package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	"github.com/posterngate/postern/controlplane"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/pkg/conf"
	"github.com/posterngate/postern/pkg/daemon"
)

//go:embed sample.yaml
var sampleText string

// sample is what a first configuration is made of.
type sample struct {
	Dir, Data, KeyFile, Host, Issuer, AdminGroup string

	account  string // that will run the control plane; who runs this where empty
	uid, gid int
}

// unitAccount is the account under which the systemd units run.
const unitAccount = "postern"

// initialise writes a commented configuration and a new key file for a deployment to
// be. It never replaces a file.
func initialise(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("postern-control init", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var s sample
	flags.StringVar(&s.Dir, "dir", "/etc/postern", "where control.yaml and keeper.key are written")
	flags.StringVar(&s.Data, "data-dir", "/var/lib/postern-control", "where the control plane will keep its data")
	flags.StringVar(&s.Host, "host", "", "the name under which clients and nodes reach the control plane (default: this machine's)")
	flags.StringVar(&s.Issuer, "issuer", "", "URL of the OIDC issuer at which people sign in (required)")
	flags.StringVar(&s.AdminGroup, "admin-group", "", "group whose members may do everything (required)")
	flags.StringVar(&s.account, "user", "", "the account that will run postern-control, which is given the key file (default: "+unitAccount+" where root runs this and there is one, else who runs this)")
	flags.Usage = func() {
		fmt.Fprint(stderr, "usage: postern-control init --issuer URL --admin-group GROUP [--dir DIR]\n\nWrites a first configuration, with comments, and a key file.\n\n")
		flags.PrintDefaults()
	}
	if code, done := daemon.Parse(flags, args); done {
		return code
	}
	if err := s.check(); err != nil {
		fmt.Fprintln(stderr, "postern-control init:", err)
		return 2
	}
	file, err := s.write()
	if err != nil {
		fmt.Fprintln(stderr, "postern-control init:", err)
		return 1
	}
	fmt.Fprintf(stdout, `wrote %s
wrote %s; keep a copy of it, apart from backups of etcd

Next:
  1. Read %s, and register the three clients that it names at %s.
  2. postern-control --config %s
  3. Give %s to those who use "postern": POSTERN_CA, with POSTERN_ADDR=https://%s:8443
  4. postern login, postern apply -f POLICY, postern nodes enrol NODE --region REGION
  5. Once it runs, keep a copy of %s, which signs the audit log, too.
`, file, s.KeyFile, file, s.Issuer, file, filepath.Join(s.Data, "ca.pem"), s.Host, filepath.Join(s.Data, "audit.key"))
	return 0
}

var (
	hostName  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)
	groupName = regexp.MustCompile(`^[\pL\pN][\pL\pN ._@/:+-]*$`)
)

// check refuses what would not do, or would not stand in the file as it is meant.
func (s *sample) check() (err error) {
	if s.Host == "" {
		if s.Host, err = os.Hostname(); err != nil {
			return fmt.Errorf("--host is required: %w", err)
		}
	}
	for _, dir := range []*string{&s.Dir, &s.Data} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
		if strings.ContainsAny(*dir, "\n#:{}[]'\"") {
			return fmt.Errorf("%q: choose a folder with a simpler name", *dir)
		}
	}
	s.KeyFile = filepath.Join(s.Dir, "keeper.key")
	if err := s.findAccount(); err != nil {
		return err
	}
	u, err := url.Parse(s.Issuer)
	switch {
	case s.Issuer == "" || s.AdminGroup == "":
		return errors.New("--issuer and --admin-group are required")
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.ContainsAny(s.Issuer, " \t\n#"):
		return fmt.Errorf("--issuer %q is not a URL", s.Issuer)
	case u.Scheme == "http" && !conf.Loopback(u.Hostname()):
		return fmt.Errorf("--issuer %q is not https, and so whoever is on the way could sign in as anybody", s.Issuer)
	case !hostName.MatchString(s.Host):
		return fmt.Errorf("--host %q is not a host name", s.Host)
	case !groupName.MatchString(s.AdminGroup):
		return fmt.Errorf("--admin-group %q cannot be written as it is; edit the file for it", s.AdminGroup)
	}
	return nil
}

// findAccount finds who will own the key file.
func (s *sample) findAccount() error {
	name := s.account
	if name == "" && os.Geteuid() == 0 {
		name = unitAccount
	}
	s.uid, s.gid = os.Geteuid(), os.Getegid()
	if name == "" {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil && s.account == "" {
		return nil // root, without the units' account
	}
	if err != nil {
		return fmt.Errorf("--user: %w", err)
	}
	uid, uerr := strconv.Atoi(u.Uid)
	gid, gerr := strconv.Atoi(u.Gid)
	if err := errors.Join(uerr, gerr); err != nil {
		return fmt.Errorf("--user %s: %w", name, err)
	}
	s.uid, s.gid = uid, gid
	return nil
}

// write makes the files, the configuration last: where that exists, all is there.
func (s *sample) write() (file string, err error) {
	file = filepath.Join(s.Dir, "control.yaml")
	if _, err := os.Lstat(file); err == nil {
		return "", fmt.Errorf("%s exists already, and is left as it is", file)
	}
	text, err := template.New("sample").Parse(sampleText)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil { //nolint:gosec // others may look at the configuration; the key is 0600
		return "", err
	}
	if _, err := sealed.OpenKeyFile(s.KeyFile); err != nil { // made where there is none
		return "", err
	}
	if err := os.Lchown(s.KeyFile, s.uid, s.gid); err != nil { // what a link leads to stays its owner's
		return "", err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // holds no secret
	if err != nil {
		return "", err
	}
	if err := errors.Join(text.Execute(f, s), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(file))
	}
	if _, err := controlplane.Load(file); err != nil { // as it will be once it starts
		return "", errors.Join(err, os.Remove(file))
	}
	return file, nil
}
