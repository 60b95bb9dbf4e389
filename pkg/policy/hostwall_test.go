package policy

import (
	"testing"

	"github.com/posterngate/postern/pkg/postern"
)

func TestHostLogin(t *testing.T) {
	for permit, want := range map[string]HostLogin{
		`{channel: exec, argv: [/usr/bin/systemctl, restart, nginx]}`:                              {Command: "/usr/bin/systemctl restart nginx"},
		`{channel: exec, argv: [/bin/echo, "a b"], pty: true}`:                                     {Command: "/bin/echo 'a b'", Terminal: true},
		`{channel: exec, argv: [/usr/bin/systemctl, status, "*"]}`:                                 {},
		`{channel: exec, argv: [/usr/bin/uptime, "..."]}`:                                          {},
		`{channel: exec, argv: [/usr/bin/uptime]}, {channel: exec, argv: [/usr/bin/df]}`:           {},
		`{channel: exec, argv: [/usr/bin/uptime]}, {channel: files, verbs: [read], paths: [/srv]}`: {},
		`{channel: guard}, {channel: exec, argv: [/usr/bin/uptime]}`:                               {},
		`{channel: shell}`: {Terminal: true},
		`{channel: forward, verbs: [connect], destinations: ["db:5432"]}`: {Forward: true},
		`{unrestricted: true}`: {Terminal: true, Forward: true},
	} {
		world := hostWorld + "---\nkind: Task\nmetadata: {name: one}\nspec: {purpose: x, resources: {names: [web-1]}, permit: [" + permit + "], duration: 1h}\n"
		s, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, parse(t, []byte(world)))
		if len(rejected) > 0 {
			t.Fatalf("%s: %+v", permit, rejected)
		}
		if got := s.HostLogin("one"); got != want {
			t.Errorf("%s: %+v, want %+v", permit, got, want)
		}
	}
	s, _ := Compile(postern.Version{Epoch: "e", Revision: 1}, nil)
	if got := s.HostLogin("nothing"); got != (HostLogin{}) {
		t.Errorf("no task: %+v", got)
	}
}
