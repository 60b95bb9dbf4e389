package policy

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/pkg/ssh/shell"
)

const hostWorld = `
kind: Resource
metadata: {name: web-1}
spec:
  protocol: ssh
  endpoint: {host: 10.0.0.7, port: 22, ssh: {hostKeys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5i7tWu0zXJxqg2bW9pK1hT0o7zW9lQm1u1Q1bq3w1W"]}}
  credential: {sealed: web}
---
kind: Resource
metadata: {name: db}
spec: {protocol: postgres, endpoint: {host: db.internal, port: 5432, database: d}, credential: {sealed: web}}
---
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}]}
---
kind: Task
metadata: {name: web}
spec:
  purpose: look after the web server
  resources: {names: [web-1, db]}
  permit:
    - {channel: exec, argv: [/usr/bin/systemctl, status, nginx]}
    - {channel: exec, argv: [/usr/bin/systemctl, restart, nginx], approval: {scope: statement, rule: leads}}
    - {channel: exec, argv: [/usr/bin/tail, "-n", "*", "/var/log/nginx/*.log"]}
    - {channel: exec, argv: [/usr/bin/grep, "..."]}
    - {channel: exec, argv: [/usr/bin/htop], pty: true, env: [LANG]}
    - {channel: files, verbs: [read, write], paths: ["/srv/www/**", "/etc/nginx/*.conf"]}
    - {channel: files, verbs: [delete], paths: [/srv/www/tmp/*]}
    - {channel: forward, verbs: [connect], destinations: ["127.0.0.1:8080"]}
    - {channel: guard}
  duration: 1h
---
kind: Task
metadata: {name: anything}
spec: {purpose: break glass, resources: {names: [web-1]}, permit: [{unrestricted: true}], duration: 1h}
`

func TestChannels(t *testing.T) {
	objects, err := object.ParseYAML(strings.NewReader(hostWorld))
	if err != nil {
		t.Fatal(err)
	}
	s, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, objects)
	if len(rejected) > 0 {
		t.Fatalf("%+v", rejected)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	decide := func(task postern.TaskName, resource postern.ResourceName, f *ssh.Facts) postern.Decision {
		return s.Decide(Query{
			Grant:    &postern.Grant{ID: "g", Subject: postern.Subject{Name: "alice"}, Task: task, Start: now, End: now.Add(time.Hour)},
			Resource: resource, Facts: f, Request: Request{Time: now},
		})
	}
	exec := func(line string) *ssh.Facts {
		l, err := shell.Parse(line)
		if err != nil {
			return &ssh.Facts{Verb: ssh.Exec, Unknown: err.Error()}
		}
		return &ssh.Facts{Verb: ssh.Exec, Line: l}
	}
	for _, c := range []struct {
		facts *ssh.Facts
		want  string // the verdict, the programs
	}{
		{exec("systemctl status nginx"), "allow /usr/bin/systemctl"},
		{exec("/usr/bin/systemctl status nginx"), "allow /usr/bin/systemctl"},
		{exec("systemctl restart nginx"), "hold /usr/bin/systemctl"},
		{exec("systemctl status nginx; systemctl restart nginx"), "hold /usr/bin/systemctl /usr/bin/systemctl"},
		{exec("systemctl status nginx | grep active"), "allow /usr/bin/systemctl /usr/bin/grep"},
		{exec("/tmp/systemctl status nginx"), "deny"},
		{exec("./systemctl status nginx"), "deny"},
		{exec("systemctl status nginx sshd"), "deny"},
		{exec("systemctl status"), "deny"},
		{exec("systemctl stop nginx"), "deny"},
		{exec("systemctl status nginx; id"), "deny"},
		{exec("systemctl status $(id)"), "deny"},
		{exec("sh -c 'systemctl status nginx'"), "deny"},
		{exec("tail -n 5 /var/log/nginx/access.log"), "allow /usr/bin/tail"},
		{exec("tail -n 5 /var/log/nginx/../../etc/shadow.log"), "deny"},
		{exec("tail -n -f /var/log/nginx/access.log"), "deny"},
		{exec("grep -r secret"), "deny"},
		{exec("grep secret /etc/motd"), "allow /usr/bin/grep"},
		{exec("grep secret ../x"), "deny"},
		{&ssh.Facts{Verb: ssh.Exec, Line: exec("htop").Line, Terminal: true}, "allow LANG /usr/bin/htop"},
		{&ssh.Facts{Verb: ssh.Exec, Line: exec("systemctl status nginx").Line, Terminal: true}, "deny"},
		{&ssh.Facts{Verb: ssh.Exec}, "deny"},
		{&ssh.Facts{Verb: ssh.Shell, Terminal: true}, "allow guarded"},
		{&ssh.Facts{Verb: ssh.Files}, "allow"},
		{&ssh.Facts{Verb: ssh.Read, Paths: []string{"/srv/www/a/b"}}, "allow"},
		{&ssh.Facts{Verb: ssh.Read, Paths: []string{"/srv/www"}}, "allow"},
		{&ssh.Facts{Verb: ssh.Read, Paths: []string{"/srv/wwwx"}}, "deny"},
		{&ssh.Facts{Verb: ssh.Write, Paths: []string{"/etc/nginx/nginx.conf"}}, "allow"},
		{&ssh.Facts{Verb: ssh.Write, Paths: []string{"/etc/nginx/conf.d/a.conf"}}, "deny"},
		{&ssh.Facts{Verb: ssh.Write, Paths: []string{"/srv/www/a", "/etc/passwd"}}, "deny"},
		{&ssh.Facts{Verb: ssh.Write, Paths: []string{"/srv/www/a", "/srv/www/b"}, Below: true}, "allow"},
		{&ssh.Facts{Verb: ssh.Write, Paths: []string{"/etc/nginx/a.conf", "/srv/www/b"}}, "allow"},
		{&ssh.Facts{Verb: ssh.Write, Paths: []string{"/etc/nginx/a.conf", "/srv/www/b"}, Below: true}, "deny"},
		{&ssh.Facts{Verb: ssh.Write, Paths: []string{"/srv/www/b", "/etc/nginx/a.conf"}, Below: true}, "deny"},
		{&ssh.Facts{Verb: ssh.Delete, Paths: []string{"/srv/www/a"}}, "deny"},
		{&ssh.Facts{Verb: ssh.Delete, Paths: []string{"/srv/www/tmp/a"}}, "allow"},
		{&ssh.Facts{Verb: ssh.Read}, "deny"},
		{&ssh.Facts{Verb: ssh.Connect, Address: "127.0.0.1:8080"}, "allow"},
		{&ssh.Facts{Verb: ssh.Connect, Address: "127.0.0.1:22"}, "deny"},
		{&ssh.Facts{Verb: ssh.Listen, Address: "127.0.0.1:8080"}, "deny"},
		{&ssh.Facts{}, "deny"},
		{nil, "deny"},
	} {
		d := decide("web", "web-1", c.facts)
		got := d.Verdict.String()
		for _, o := range d.Obligations {
			got += " " + strings.Join(append(slices.Clone(o.Env), o.Programs...), " ")
			if o.Guard {
				got += "guarded"
			}
		}
		if got != c.want {
			t.Errorf("%+v: %s (%s %s), want %s", c.facts, got, d.Reason, d.Detail, c.want)
		}
		if d.Verdict == postern.VerdictDeny && (d.Reason == "" || d.Rule == "") {
			t.Errorf("%+v is denied without a reason or a rule", c.facts)
		}
	}
	// What is there nobody learns of a refusal; that a folder is one, who may move its name.
	for _, f := range []*ssh.Facts{
		{Verb: ssh.Write, Asked: "/etc/a", Paths: []string{"/etc/a"}},
		{Verb: ssh.Write, Asked: "/etc/a", Paths: []string{"/etc/a", "/root/b"}},
		{Verb: ssh.Write, Asked: "/etc/a", Paths: []string{"/etc/a", "/root/b"}, Below: true},
		{Verb: ssh.Write, Asked: "/etc/a", Paths: []string{"/etc/a/new"}},
	} {
		if d := decide("web", "web-1", f); d.Reason != `task "web" does not allow to write /etc/a` || strings.Contains(d.Detail, "root") {
			t.Errorf("%+v: %s (%s)", f, d.Reason, d.Detail)
		}
	}
	if d := decide("web", "db", exec("systemctl status nginx")); d.Verdict != postern.VerdictDeny {
		t.Error("a task for ssh reaches a database")
	}
	if d := decide("anything", "web-1", &ssh.Facts{Verb: ssh.Shell}); d.Verdict != postern.VerdictAllow || d.Level != postern.LevelNone {
		t.Errorf("unrestricted: %+v", d)
	}
}

// TestPlainLooking: what would be a shell is not taken for a command.
func TestPlainLooking(t *testing.T) {
	const ok, argv, env = "", "spec.permit[0].argv", "spec.permit[0].env[0]"
	for permit, want := range map[string]string{
		`argv: [/usr/bin/less, /var/log/app]`:                                                        ok,
		`argv: [/usr/bin/less, /var/log/app], pty: true`:                                             argv,
		`argv: [/usr/bin/vim.basic, /etc/motd], pty: true`:                                           argv,
		`argv: [/usr/bin/psql, app], pty: true`:                                                      argv,
		`argv: [/usr/bin/journalctl, -u, "*"]`:                                                       ok,
		`argv: [/usr/bin/journalctl, -u, "*"], pty: true`:                                            argv,
		`argv: [/usr/bin/journalctl, --no-pager, -u, "*"], pty: true`:                                ok,
		`argv: [/usr/bin/perl, /opt/report.pl]`:                                                      ok,
		`argv: [/usr/bin/perl5.36, "*"]`:                                                             argv,
		`argv: [/usr/bin/python3.11, "..."]`:                                                         argv,
		`argv: [/usr/bin/tcsh, "*"]`:                                                                 argv,
		`argv: [/usr/bin/nodejs, "/srv/app/*.js"]`:                                                   argv,
		`argv: [/usr/sbin/runuser, -u, app, "..."]`:                                                  argv,
		`argv: [/usr/sbin/logrotate, "*"]`:                                                           argv,
		`argv: [/usr/bin/sha256sum, "..."]`:                                                          ok,
		`argv: [/usr/bin/sqlite3, /srv/app.db, "*"]`:                                                 argv,
		`argv: [/usr/bin/sqlite3, /srv/app.db, SELECT 1]`:                                            ok,
		`argv: [/usr/bin/mysql, -e, "*"]`:                                                            argv,
		`argv: [/usr/bin/crontab, -e], pty: true`:                                                    argv,
		`argv: [/usr/bin/git, log], pty: true`:                                                       argv,
		`argv: [/usr/bin/git, --no-pager, log], pty: true`:                                           ok,
		`argv: [/usr/bin/dpkg, -l], pty: true`:                                                       argv,
		`argv: [/usr/bin/git, status]`:                                                               ok,
		`argv: [/usr/bin/git-upload-pack, "/srv/git/*"], env: [GIT_PROTOCOL, LANG]`:                  ok,
		`argv: [/srv/app/run]}, {channel: files, verbs: [read, delete], paths: ["/srv/**"]`:          ok,
		`argv: [/srv/app/run]}, {channel: files, verbs: [write], paths: ["/srv/app/*.html"]`:         ok,
		`argv: [/srv/app/run]}, {channel: files, verbs: [write], paths: ["/srv/**"]`:                 argv,
		`argv: [/bin/bash, -e, /srv/app/run]}, {channel: files, verbs: [write], paths: ["/srv/**"]`:  argv,
		`argv: [/usr/bin/sudo, -n, /srv/run]}, {channel: files, verbs: [write], paths: ["/srv/run"]`: argv,
		`argv: [/usr/bin/tail, /srv/app/log]}, {channel: files, verbs: [write], paths: ["/srv/**"]`:  ok,
		`argv: [/usr/bin/psql, app]`:                                                                 argv, // \\! in its input
		`argv: [/usr/bin/psql, -c, SELECT 1]`:                                                        ok,
		`argv: [/usr/bin/psql, -cSELECT 1, app]`:                                                     ok,
		`argv: [/usr/bin/psql, --file=/srv/report.sql]`:                                              ok,
		`argv: [/usr/bin/psql, -f, "-"]`:                                                             argv,
		`argv: [/usr/bin/psql, -c, "*"]`:                                                             argv,
		`argv: [/usr/bin/mysql, app]`:                                                                argv,
		`argv: [/usr/bin/sqlite3, -readonly, /srv/app.db]`:                                           argv,
		`argv: [/usr/bin/sqlite3, /srv/app.db, .tables]`:                                             ok,
		`argv: [/usr/bin/ed, /etc/motd]`:                                                             argv,
		`argv: [/usr/bin/view, /etc/motd]`:                                                           argv,
		`argv: [/usr/bin/sftp, backup]`:                                                              argv,
		`argv: [/usr/bin/sftp, -b, /srv/batch, backup]`:                                              ok,
		`argv: [/bin/bash]`:                                                                          argv,
		`argv: [/bin/bash, --version]`:                                                               ok,
		`argv: [/bin/bash, -c, uptime]`:                                                              ok,
		`argv: [/usr/bin/python3]`:                                                                   argv,
		`argv: [/usr/bin/at, now]`:                                                                   argv,
		`argv: [/usr/bin/crontab, -l]`:                                                               ok,
		`argv: [/usr/bin/sudo, /usr/bin/less, /var/log/app], pty: true`:                              argv,
		`argv: [/usr/bin/sudo, -u, postgres, psql]`:                                                  argv,
		`argv: [/usr/bin/sudo, -e, /etc/motd]`:                                                       argv,
		`argv: [/usr/bin/sudo, -iu, postgres]`:                                                       argv,
		`argv: [/usr/bin/sudo, -nu, app, bash]`:                                                      argv,
		`argv: [/usr/bin/sudo, -Eu, alice, /usr/bin/uptime]`:                                         ok,
		`argv: [/usr/bin/sudo, /usr/bin/grep, -i, -e, x, /var/log/app]`:                              ok,
		`argv: [/usr/bin/sudo, -i]`:                                                                  argv,
		`argv: [/usr/bin/sudo, -n, -u, app, /usr/bin/systemctl, restart, "*"]`:                       ok,
		`argv: [/usr/bin/sudo, /usr/bin/systemctl, edit, "*"]`:                                       argv,
		`argv: [/usr/bin/sudo, systemctl, restart, "*"]`:                                             argv,
		`argv: [/usr/bin/sudo, -u, "*", /usr/bin/uptime]`:                                            argv,
		`argv: [/usr/bin/sudo, -D, /srv, "*"]`:                                                       argv,
		`argv: [/usr/bin/sudo, /usr/bin/env, "*"]`:                                                   argv,
		`argv: [/usr/bin/timeout, "10", vim, /etc/motd], pty: true`:                                  argv,
		`argv: [/usr/bin/timeout, "10", /usr/bin/systemctl, restart, mysql]`:                         ok,
		`argv: [/usr/bin/flock, /run/lock, bash]`:                                                    argv,
		`argv: [/usr/bin/systemctl, "..."]`:                                                          argv,
		`argv: [/usr/bin/systemctl, --user, status, "*"]`:                                            ok,
		`argv: [/usr/bin/systemctl, link, "*"]`:                                                      argv,
		`argv: [/usr/sbin/ip, "..."]`:                                                                argv, // netns exec
		`argv: [/usr/sbin/ip, -br, addr, "..."]`:                                                     ok,
		`argv: [/usr/sbin/ip6tables, -L, "*"]`:                                                       ok,
		`argv: [/usr/bin/docker, logs, "*"]`:                                                         ok,
		`argv: [/usr/bin/docker, exec, "*", ls]`:                                                     argv,
		`argv: [/usr/bin/docker, -H, logs, exec, "*"]`:                                               argv,
		`argv: [/usr/bin/apt-get, install, "*"]`:                                                     argv,
		`argv: [/usr/bin/rename, "*", /srv/a]`:                                                       argv,
		`argv: [/usr/bin/ncdu, /var], pty: true`:                                                     argv,
		`argv: [/usr/bin/editor, /etc/motd], pty: true`:                                              argv,
		`argv: [/usr/bin/sort, "-*", /srv/a]`:                                                        "spec.permit[0].argv[1]",
		`argv: [/usr/bin/sort, "--*", /srv/a]`:                                                       "spec.permit[0].argv[1]",
		`argv: [/usr/bin/sort, "-k*", /srv/a]`:                                                       ok,
		`argv: [/bin/ls], env: [DBUS_SESSION_BUS_ADDRESS]`:                                           env,
		`argv: [/bin/ls], env: [KUBE_EDITOR]`:                                                        env,
		`argv: [/bin/ls], env: [AWS_PAGER]`:                                                          env,
		`argv: [/bin/ls], env: [CATALINA_OPTS]`:                                                      env,
		`argv: [/usr/bin/git, status], env: [GIT_EXTERNAL_DIFF]`:                                     env,
		`argv: [/bin/ls], env: [LD_PRELOAD]`:                                                         env,
		`argv: [/bin/ls], env: [LESSCLOSE]`:                                                          env,
		`argv: [/bin/ls], env: [RSYNC_RSH]`:                                                          env,
		`argv: [/bin/ls], env: [ZDOTDIR]`:                                                            env,
		`argv: [/bin/ls], env: [ANSIBLE_LIBRARY]`:                                                    env,
		`argv: [/bin/ls], env: [https_proxy]`:                                                        env,
		`argv: [/bin/ls], env: [SSLKEYLOGFILE]`:                                                      env,
		`argv: [/bin/ls], env: [npm_config_script_shell]`:                                            env,
		`argv: [/bin/ls], env: [LIBMYSQL_PLUGINS]`:                                                   env,
	} {
		objects, err := object.ParseYAML(strings.NewReader(hostWorld + `---
kind: Task
metadata: {name: plain}
spec: {purpose: look, resources: {names: [web-1]}, duration: 1h, permit: [{channel: exec, ` + permit + `}]}
`))
		if err != nil {
			t.Fatal(permit, err)
		}
		found := Validate(objects[len(objects)-1], lookupIn(objects))
		if got := len(found); got > 1 || got == 1 && found[0].Field != want || got == 0 && want != ok {
			t.Errorf("%s: %v, want %q", permit, found, want)
		}
	}
}

// TestHome: what runs at an account's logins is changed where a permit says so.
func TestHome(t *testing.T) {
	const wide, other = `verbs: [read, write, delete], paths: ["/home/**"]`, `verbs: [write], paths: ["/home/app/.cache/**", "/home/*/.x*"]`
	for _, c := range []struct {
		permit string
		f      ssh.Facts
		want   postern.Verdict
	}{
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/app/page"}}, postern.VerdictAllow},
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/app/www/.htaccess"}}, postern.VerdictAllow},
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/other/.profile"}}, postern.VerdictAllow},
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/app"}}, postern.VerdictAllow},
		{wide, ssh.Facts{Verb: ssh.Read, Paths: []string{"/home/app/.bashrc"}}, postern.VerdictAllow},
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/app/.bashrc"}}, postern.VerdictDeny},
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/app/.ssh/authorized_keys"}}, postern.VerdictDeny},
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/app/link", "/home/app/.ssh/rc"}}, postern.VerdictDeny},
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/app/a", "/home/app/.ssh"}, Below: true}, postern.VerdictDeny},
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/app/a", "/home/app/b"}, Below: true}, postern.VerdictAllow},
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/app", "/home/old"}, Below: true}, postern.VerdictDeny},
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/new", "/home/app"}, Below: true}, postern.VerdictDeny},
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home", "/home/app2"}, Below: true}, postern.VerdictDeny},
		{wide, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/ap", "/home/application"}, Below: true}, postern.VerdictAllow},
		{wide, ssh.Facts{Verb: ssh.Delete, Paths: []string{"/home/app/.profile"}}, postern.VerdictDeny},
		{wide, ssh.Facts{Verb: ssh.Delete, Paths: []string{"/home/app"}}, postern.VerdictDeny},
		{wide, ssh.Facts{Verb: ssh.Delete, Paths: []string{"/home/app/page"}}, postern.VerdictAllow},
		{wide, ssh.Facts{Verb: ssh.Write, Home: "/", Paths: []string{"/home/app/.profile"}}, postern.VerdictAllow},
		{`verbs: [write], paths: ["/**"]`, ssh.Facts{Verb: ssh.Write, Home: "/", Paths: []string{"/.ssh/rc"}}, postern.VerdictDeny},
		{other, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/app/.cache/a"}}, postern.VerdictAllow},
		{other, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/app/.xsession"}}, postern.VerdictAllow},
		{`verbs: [write], paths: ["/home/**"]}, {channel: files, verbs: [read], paths: ["/home/app/.ssh/**"]`, ssh.Facts{Verb: ssh.Write, Paths: []string{"/home/app/.ssh/a"}}, postern.VerdictDeny},
	} {
		objects, err := object.ParseYAML(strings.NewReader(hostWorld + `---
kind: Task
metadata: {name: home}
spec: {purpose: put files at home, resources: {names: [web-1]}, duration: 1h, permit: [{channel: files, ` + c.permit + `}]}
`))
		if err != nil {
			t.Fatal(err)
		}
		s, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, objects)
		if len(rejected) > 0 {
			t.Fatalf("%+v", rejected)
		}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		c.f.Home = cmp.Or(c.f.Home, "/home/app")
		if c.f.Below {
			c.f.From, c.f.To = c.f.Paths[0], c.f.Paths[1]
		}
		d := s.Decide(Query{
			Grant:    &postern.Grant{ID: "g", Subject: postern.Subject{Name: "alice"}, Task: "home", Start: now, End: now.Add(time.Hour)},
			Resource: "web-1", Facts: &c.f, Request: Request{Time: now},
		})
		if d.Verdict != c.want {
			t.Errorf("%s: %+v: %s (%s), want %s", c.permit, c.f, d.Verdict, d.Reason, c.want)
		}
	}
}

// TestMoves: nothing is moved to where more of it may be read, or on other terms.
func TestMoves(t *testing.T) {
	const in, out, logs = "/in/a", "/out/a", "/logs/a"
	const writes = `{channel: files, verbs: [write], paths: ["/in/**", "/out/**", "/logs/**"]}`
	for name, c := range map[string]struct {
		reads    string
		from, to string
		below    bool
		want     postern.Verdict
	}{
		"read nowhere":                     {``, in, out, false, postern.VerdictAllow},
		"to be read":                       {`{channel: files, verbs: [read], paths: ["/out/**"]}`, in, out, false, postern.VerdictDeny},
		"read no more":                     {`{channel: files, verbs: [read], paths: ["/out/**"]}`, out, in, false, postern.VerdictAllow},
		"within what is read":              {`{channel: files, verbs: [read], paths: ["/out/**"]}`, out, "/out/b", false, postern.VerdictAllow},
		"within what is not":               {`{channel: files, verbs: [read], paths: ["/out/**"]}`, in, "/in/b", false, postern.VerdictAllow},
		"both read":                        {`{channel: files, verbs: [read], paths: ["/in/**"]}, {channel: files, verbs: [read], paths: ["/out/**"]}`, in, out, false, postern.VerdictAllow},
		"people are asked no more":         {`{channel: files, verbs: [read], paths: ["/in/**"], approval: {scope: statement, rule: leads}}, {channel: files, verbs: [read], paths: ["/out/**"]}`, in, out, false, postern.VerdictDeny},
		"a condition less":                 {`{channel: files, verbs: [read], paths: ["/in/**", "/out/**"], when: "subject.mfa"}, {channel: files, verbs: [read], paths: ["/out/**"]}`, in, out, false, postern.VerdictDeny},
		"a folder that is read":            {`{channel: files, verbs: [read], paths: ["/out/**"]}`, in, out, true, postern.VerdictDeny},
		"a folder of which a part is read": {`{channel: files, verbs: [read], paths: ["/out/a/*.log"]}`, in, out, true, postern.VerdictDeny},
		"a folder with what is below":      {`{channel: files, verbs: [read], paths: ["/in/**", "/out/**"]}`, in, out, true, postern.VerdictAllow},
		"a folder of which a part was":     {`{channel: files, verbs: [read], paths: ["/in/a/*", "/out/**"]}`, in, out, true, postern.VerdictDeny},
		"a folder beside what is read":     {`{channel: files, verbs: [read], paths: ["/out/b/**"]}`, in, out, true, postern.VerdictAllow},
		"a file beside what is read":       {`{channel: files, verbs: [read], paths: ["/out/a/*"]}`, in, out, false, postern.VerdictAllow},
		"elsewhere":                        {`{channel: files, verbs: [read], paths: ["/out/**"]}`, in, logs, false, postern.VerdictAllow},
	} {
		permit := writes
		if c.reads != "" {
			permit += ", " + c.reads
		}
		objects, err := object.ParseYAML(strings.NewReader(hostWorld + `---
kind: Task
metadata: {name: move}
spec: {purpose: move files, resources: {names: [web-1]}, duration: 1h, permit: [` + permit + `]}
`))
		if err != nil {
			t.Fatal(name, err)
		}
		s, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, objects)
		if len(rejected) > 0 {
			t.Fatalf("%s: %+v", name, rejected)
		}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		d := s.Decide(Query{
			Grant:    &postern.Grant{ID: "g", Subject: postern.Subject{Name: "alice"}, Task: "move", Start: now, End: now.Add(time.Hour)},
			Resource: "web-1", Request: Request{Time: now},
			Facts: &ssh.Facts{Verb: ssh.Write, Paths: []string{c.from, c.to}, From: c.from, To: c.to, Below: c.below},
		})
		if d.Verdict != c.want {
			t.Errorf("%s: %s (%s)", name, d.Verdict, d.Reason)
		}
	}
}

func FuzzLike(f *testing.F) {
	f.Add("a*c*e", "abcde")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 20 || len(s) > 50 {
			return
		}
		if got, want := like(pattern, s), slowLike(pattern, s); got != want {
			t.Errorf("%q like %q is %v", s, pattern, got)
		}
	})
}

// slowLike tries every way.
func slowLike(pattern, s string) bool {
	if pattern == "" {
		return s == ""
	}
	if pattern[0] == '*' {
		return slowLike(pattern[1:], s) || s != "" && slowLike(pattern, s[1:])
	}
	return s != "" && s[0] == pattern[0] && slowLike(pattern[1:], s[1:])
}
