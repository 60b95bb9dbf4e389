package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/pkg/ssh/shell"
)

const maskWorld = hostWorld + `---
kind: Mask
metadata: {name: hidden}
spec: {method: redact, value: "***"}
---
kind: Mask
metadata: {name: last4}
spec: {method: partial, keepLast: 4}
---
kind: Mask
metadata: {name: coded}
spec: {method: token, domain: d, key: {secret: k}}
---
kind: Task
metadata: {name: logs}
spec:
  purpose: read the logs
  resources: {names: [web-1]}
  permit:
    - {channel: exec, argv: [/bin/cat, /var/log/shop.log], detect: {email: hidden, secrets: hidden}}
    - {channel: exec, argv: [/bin/grep, "*"], detect: {email: last4, card: last4}}
    - {channel: exec, argv: [/bin/date]}
    - {channel: shell, detect: {email: hidden, secrets: hidden, card: last4}}
  duration: 1h
`

func TestDetect(t *testing.T) {
	s, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, parse(t, []byte(maskWorld)))
	if len(rejected) > 0 {
		t.Fatalf("%+v", rejected)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	decide := func(f *ssh.Facts) postern.Decision {
		return s.Decide(Query{
			Grant:    &postern.Grant{ID: "g", Subject: postern.Subject{Name: "alice"}, Task: "logs", Start: now, End: now.Add(time.Hour)},
			Resource: "web-1", Facts: f, Request: Request{Time: now},
		})
	}
	exec := func(line string) *ssh.Facts {
		l, err := shell.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		return &ssh.Facts{Verb: ssh.Exec, Line: l}
	}
	masks := func(d postern.Decision) string {
		var out []string
		for _, o := range d.Obligations {
			if o.Content != nil {
				for _, r := range o.Content.Detect {
					out = append(out, r.Kind+"="+r.Mask.Name)
				}
				out = append(out, ".")
			}
		}
		return strings.Join(out, " ")
	}
	for _, c := range []struct {
		facts *ssh.Facts
		want  string
		level postern.Level
	}{
		{exec("cat /var/log/shop.log"), "email=hidden secrets=hidden .", postern.LevelNone},
		{exec("cat /var/log/shop.log | grep x"), "email=hidden secrets=hidden card=last4 .", postern.LevelNone},
		{exec("date"), "", postern.LevelSource},
		{exec("date; cat /var/log/shop.log"), "email=hidden secrets=hidden .", postern.LevelNone},
		{&ssh.Facts{Verb: ssh.Shell, Terminal: true}, "card=last4 email=hidden secrets=hidden .", postern.LevelNone},
	} {
		for range 2 { // what is shared by decisions is not changed
			if d := decide(c.facts); d.Verdict != postern.VerdictAllow || masks(d) != c.want || d.Level != c.level {
				t.Errorf("%+v: %s %q %v, want %q", c.facts, d.Verdict, masks(d), d.Level, c.want)
			}
		}
	}
}

func TestDetectIsChecked(t *testing.T) {
	base := strings.Replace(maskWorld, "{email: last4, card: last4}", "{email: last4, DETECT}", 1)
	for replace, want := range map[string]string{
		"mails: hidden": `"mails" is not a kind of content`,
		"card: coded":   "whose key no node has",
		"card: nothing": `there is no mask "nothing"`,
		`card: ""`:      `there is no mask ""`,
	} {
		_, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, parse(t, []byte(strings.Replace(base, "DETECT", replace, 1))))
		if len(rejected) != 1 || !strings.Contains(rejected[0].Reason, want) {
			t.Errorf("%s: %+v, want %s", replace, rejected, want)
		}
	}
	bare := strings.Replace(maskWorld, "{channel: shell, detect: {email: hidden, secrets: hidden, card: last4}}", "{channel: shell, detect: {email: hidden}}", 1)
	if _, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, parse(t, []byte(bare))); len(rejected) != 1 || !strings.Contains(rejected[0].Reason, "a shell shows what other permits of this task mask: add card, secrets") {
		t.Errorf("a shell that masks less: %+v", rejected)
	}
	files := strings.Replace(maskWorld, "verbs: [delete], paths: [/srv/www/tmp/*]", "verbs: [delete], paths: [/srv/www/tmp/*], detect: {email: hidden}", 1)
	if _, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, parse(t, []byte(files))); len(rejected) != 1 || !strings.Contains(rejected[0].Reason, "does not belong to channel files") {
		t.Errorf("%+v", rejected)
	}
	if got := Referrers("mask", "hidden", parse(t, []byte(maskWorld))); len(got) != 1 || got[0] != "task/logs" {
		t.Errorf("referrers: %v", got)
	}
}
