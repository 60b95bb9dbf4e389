package userapi

import (
	"fmt"
	"strings"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// hostFindings tell what a host itself holds sessions to, which rests on what is lent: a
// certificate that Vault makes for one session is bounded by its task, any other key or
// password opens all that its account may do.
func hostFindings(now *policy.Snapshot, res *typesv1.Resource, tasks []postern.TaskName) (out []*nodev1.Finding) {
	name := res.GetMetadata().GetName()
	note := func(object, text, fix string) {
		out = append(out, &nodev1.Finding{Severity: "note", Check: "host-wall", Object: object, Text: text, Fix: fix})
	}
	if res.GetSpec().GetCredential().GetVault().GetSshRole() == "" {
		note(name, "the gateway alone stands between a session and what the lent account may do: the key or password that is lent opens all of it",
			"lend certificates of Vault's SSH engine: spec.credential.vault.sshRole, and TrustedUserCAKeys at the host")
		return out
	}
	for _, t := range tasks {
		login := now.HostLogin(t)
		if login.Command != "" {
			note(string(t), fmt.Sprintf("the host itself runs %q and nothing else: a session's certificate forces it%s", login.Command, also(login)), "")
			continue
		}
		note(string(t), "which commands run and which files move is for the gateway to keep: a session's certificate is good for minutes, and bounds it to commands"+also(login),
			"allow one command whose words are all spelt out, for the host to keep it")
	}
	return out
}

// also is what a certificate is good for beside commands.
func also(l policy.HostLogin) string {
	var more []string
	if l.Terminal {
		more = append(more, "a terminal")
	}
	if l.Forward {
		more = append(more, "forwards")
	}
	if len(more) == 0 {
		return ", without terminal or forwards"
	}
	return ", with " + strings.Join(more, " and ")
}
