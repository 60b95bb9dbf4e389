package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

func (a *app) sshCmd() *cobra.Command {
	c := a.clientCmd(client{speaks: "ssh"})
	c.Use, c.Short = "ssh TASK[.RESOURCE] [-- SSH ARGS]", "Short for connect, with ssh"
	c.Long = `Takes the task for a certificate that ends with it, and runs the stock ssh through the
nearest node. The key is made here, for this one run, in a file that only ssh reads.`
	c.Example = "  postern ssh web-status\n  postern ssh web-status.web-1 -- uptime"
	return c
}

// sshFiles are where an SSH certificate lies, as OpenSSH finds it: TASK beside
// TASK-cert.pub, and the known_hosts file by which nodes are known.
type sshFiles struct{ key, cert, hosts string }

// sshFilesIn are the files for a task in a folder, which can hold those of several tasks.
func sshFilesIn(dir, task string) (sshFiles, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return sshFiles{}, err
	}
	return sshFiles{filepath.Join(dir, task), filepath.Join(dir, task+"-cert.pub"), filepath.Join(dir, "known_hosts")}, nil
}

// options are what OpenSSH needs to know to show this certificate, and nothing else of
// the user's, and to trust nodes alone. They are the words of ssh_config.
func (f sshFiles) options() [][2]string {
	return [][2]string{
		{"IdentityFile", f.key}, {"CertificateFile", f.cert}, {"IdentitiesOnly", "yes"}, {"IdentityAgent", "none"}, {"ForwardAgent", "no"},
		{"PreferredAuthentications", "publickey"}, {"UserKnownHostsFile", f.hosts}, {"GlobalKnownHostsFile", "none"}, {"StrictHostKeyChecking", "yes"},
	}
}

// sshWord writes a path as a word of ssh_config: % stands for something there.
func sshWord(v string) string {
	v = strings.ReplaceAll(v, "%", "%%")
	if strings.ContainsAny(v, " \t'\\") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
	}
	return v
}

// args are options as arguments of ssh.
func (f sshFiles) args() []string {
	var out []string
	for _, kv := range f.options() {
		out = append(out, "-o", kv[0]+"="+sshWord(kv[1]))
	}
	return out
}

// certifySSH takes a task for an SSH certificate, whose key is made here, and writes what
// it takes to show it where only the user can read it.
func (a *app) certifySSH(ctx context.Context, api *api, req *apiv1.CreateGrantRequest, f sshFiles) (*apiv1.CreateGrantResponse, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "postern "+req.GetTask())
	if err != nil {
		return nil, err
	}
	req.SshKey = string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
	resp, err := api.grants.CreateGrant(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	cert, err := parseSSHCert([]byte(resp.Msg.GetSshCertificate()))
	if err == nil {
		_, err = ssh.NewCertSigner(cert, signer)
	}
	if err != nil {
		return resp.Msg, fmt.Errorf("the control plane's certificate is not for the key that was made here: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(f.key), 0o700); err != nil {
		return resp.Msg, err
	}
	return resp.Msg, errors.Join(
		replace(f.key, pem.EncodeToMemory(block)),
		replace(f.cert, []byte(resp.Msg.GetSshCertificate()+"\n")),
		replace(f.hosts, []byte(authorityLines(resp.Msg.GetSshHostCa()))),
	)
}

// authorityLines are the lines of a known_hosts file by which all nodes are trusted: one for
// each key that certifies them.
func authorityLines(cas string) string {
	var lines strings.Builder
	for ca := range strings.Lines(cas) {
		lines.WriteString("@cert-authority * " + strings.TrimSpace(ca) + "\n")
	}
	return lines.String()
}

func parseSSHCert(line []byte) (*ssh.Certificate, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		return nil, err
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, errors.New("it is no certificate")
	}
	return cert, nil
}

// good reports whether the certificate that is there already lasts for a while.
func (f sshFiles) good(now time.Time) bool {
	line, err := os.ReadFile(f.cert)
	if err != nil {
		return false
	}
	cert, err := parseSSHCert(line)
	if err != nil {
		return false
	}
	for _, file := range []string{f.key, f.hosts} {
		if _, err := os.Stat(file); err != nil {
			return false
		}
	}
	return now.Add(renewBefore).Before(time.Unix(int64(cert.ValidBefore), 0)) //nolint:gosec // of our own control plane
}

// grantSSH takes a task for an SSH certificate and says how ssh finds it.
func (a *app) grantSSH(ctx context.Context, api *api, req *apiv1.CreateGrantRequest, dir string, reuse bool) (err error) {
	if a.format == "pgpass" || a.format == "exec-credential" {
		return usage("--format %s is for tokens, and --ssh makes none", a.format)
	}
	files, err := sshFilesIn(dir, req.GetTask())
	if err != nil {
		return err
	}
	if reuse && files.good(time.Now()) {
		return nil
	}
	resp, err := a.certifySSH(ctx, api, req, files)
	defer func() { err = made(resp, err) }()
	if err != nil {
		return err
	}
	words := []string{"-l", permission(resp)}
	for _, w := range files.args() {
		if strings.ContainsAny(w, " \t\"\\'%") {
			w = shellQuote(w)
		}
		words = append(words, w)
	}
	switch a.format {
	case "env":
		_, err := fmt.Fprintf(a.env.Stdout, "export POSTERN_TASK='%s'\nexport GIT_SSH_COMMAND=%s\n", req.GetTask(), shellQuote("ssh "+strings.Join(words, " ")))
		return err
	case "text":
		_, err := fmt.Fprintln(a.env.Stdout, strings.Join(words, " "))
		return err
	}
	return a.print(resp, nil)
}

// connectSSH runs the stock ssh at the nearest node.
func (a *app) connectSSH(ctx context.Context, api *api, to target, args []string, cl client, nodes []near) error {
	if cl.cert {
		return usage("--cert is for psql: ssh shows a certificate in any case")
	}
	host, port, err := net.SplitHostPort(nodes[0].addr)
	if err != nil {
		return err
	}
	words := []string{"-l", to.user(), "-p", port}
	if cl.print {
		_, err := fmt.Fprintf(a.env.Stdout, "ssh %s %s\n", strings.Join(words, " "), host)
		return err
	}
	program, err := stockClient("ssh", "openssh-client")
	if err != nil {
		return err
	}
	dir, done, err := a.clientFolder()
	if err != nil {
		return err
	}
	defer done()
	files, err := sshFilesIn(dir, to.task)
	if err != nil {
		return err
	}
	resp, err := a.certifySSH(ctx, api, &apiv1.CreateGrantRequest{Task: to.task, Ttl: ttlOf(cl.ttl)}, files)
	if grant := resp.GetGrant().GetId(); grant != "" {
		defer a.giveBack(ctx, api, grant)
	}
	if err != nil {
		return err
	}
	// Not bound to ctx: an interrupt is for the client.
	cmd := exec.Command(program, slices.Concat(files.args(), words, []string{host}, args)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), notForClients)
	return a.run(cmd)
}

func (a *app) configSSHCmd() *cobra.Command {
	var file, dir string
	c := &cobra.Command{
		Use: "ssh", Short: "An ssh_config entry for each of my SSH tasks", Args: cobra.NoArgs,
		Long: `Prints an ssh_config entry for each SSH task, by which ssh, scp, sftp, rsync, git and
ansible reach it by its name (ssh web-status.web-1 uptime): a certificate is fetched when it
is needed and kept in a folder while it is good. Nodes are known by one @cert-authority line, which lies in the same folder.`,
		Example: "  postern config ssh --file ~/.ssh/postern.conf   # and in ~/.ssh/config: Include postern.conf",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.configSSH(cmd.Context(), file, dir) },
	}
	c.Flags().StringVar(&file, "file", "", "write to this file; standard output where it is not given")
	c.Flags().StringVar(&dir, "dir", "", "folder of keys and certificates; POSTERN_HOME/ssh where it is not given")
	return c
}

func (a *app) configSSH(ctx context.Context, file, dir string) error {
	if dir == "" {
		home, err := a.settings()
		if err != nil {
			return err
		}
		dir = filepath.Join(home, "ssh")
	}
	command, err := a.again()
	if err != nil {
		return err
	}
	var out strings.Builder
	err = a.eachTarget(ctx, "ssh", func(to target, purpose string, nodes []near) error {
		files, err := sshFilesIn(dir, to.task)
		if err != nil {
			return err
		}
		host, port, err := net.SplitHostPort(nodes[0].addr)
		if err != nil {
			return err
		}
		fetch := fmt.Sprintf("%s grant %s --reuse --ssh %s", command, to.task, shellQuote(filepath.Dir(files.key)))
		if strings.Contains(fetch, `"`) {
			return fmt.Errorf("a path with a quotation mark cannot stand in ssh_config: %s", fetch)
		}
		fmt.Fprintf(&out, "# %s\nMatch originalhost %s exec \"%s\"\n", purpose, to.user(), strings.ReplaceAll(fetch, "%", "%%"))
		for _, kv := range append([][2]string{{"HostName", host}, {"Port", port}, {"User", to.user()}}, files.options()...) {
			fmt.Fprintf(&out, "  %s %s\n", kv[0], sshWord(kv[1]))
		}
		fmt.Fprintln(&out)
		return nil
	})
	if err != nil {
		return err
	}
	return a.writeConfig(file, out.String())
}

// again is this program as a shell runs it from anywhere, with the settings of this run: who runs
// ssh later may have none of its environment.
func (a *app) again() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	words := []string{shellQuote(self), "--addr", shellQuote(a.addr)}
	for _, f := range [][2]string{{"--ca", a.ca}, {"--home", a.home}} {
		if f[1] == "" {
			continue
		}
		path, err := filepath.Abs(f[1])
		if err != nil {
			return "", err
		}
		words = append(words, f[0], shellQuote(path))
	}
	return strings.Join(words, " "), nil
}
