package shell

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/servers"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ line, want string }{ // want is empty where it is not understood
		{"systemctl restart nginx", "systemctl restart nginx"},
		{"  systemctl   restart\tnginx # ticket 42; id", "systemctl restart nginx"},
		{"systemctl 'restart' \"nginx\"", "systemctl restart nginx"},
		{"sys'tem'ctl restart nginx", "systemctl restart nginx"},
		{"echo 'a b' \"it's\" ''", `echo 'a b' 'it'"'"'s' ''`},
		{"uptime; df -h", "uptime; df -h"},
		{"uptime\ndf -h", "uptime; df -h"},
		{"ps aux | grep nginx && uptime || df", "ps aux | grep nginx && uptime || df"},
		{"uptime 2>/dev/null", "uptime 2>/dev/null"},
		{"make all 2>&1 | tail -n 5", "make all 2>&1 | tail -n 5"},
		{"echo a=b", "echo 'a=b'"},
		{"'if' x", "'if' x"},
		{"'FOO=1' x", "'FOO=1' x"},
		{"- x", "'-' x"},
		{"date +%s %self", "date +%s '%self'"},
		{"echo grüße", "echo 'grüße'"},
		{"echo 'go! now' \\! \"it's\"", `echo 'go'\!' now' \! 'it'"'"'s'`},

		{"", ""}, {"   ", ""}, {"# nothing", ""},
		{"FOO=1 systemctl restart nginx", ""}, {"FOO=1", ""},
		{"systemctl restart nginx `id`", ""}, {"systemctl restart $(id)", ""}, {"echo $HOME", ""}, {"echo \"$HOME\"", ""}, {"echo ${x:=y}", ""}, {"echo $((1+1))", ""},
		{"echo $'\\x41'", ""}, {"echo \"a`id`\"", ""},
		{"systemctl restart nginx > /etc/cron.d/x", ""}, {"cat < /etc/shadow", ""}, {"cat <<E\nx\nE", ""}, {">x", ""}, {"uptime >/dev/null/x", ""}, {"uptime 3>&1", ""},
		{"systemctl restart ngin?", ""}, {"rm *", ""}, {"ls [a]", ""}, {"ls ~", ""}, {"ls ~root", ""}, {"echo {a,b}", ""}, {"echo a\\ b", ""}, {"echo \"a\\b\"", ""},
		{"echo a!", ""}, {"echo \"a!\"", ""}, {"echo \"\\!\"", ""}, {"echo \\\\!", ""}, {"echo !\\!", ""},
		{"uptime &", ""}, {"! uptime", ""}, {"(uptime)", ""}, {"{ uptime; }", ""}, {"if true; then id; fi", ""}, {"f() { id; }", ""}, {"f() { id; }; f", ""},
		{"systemctl restart nginx\x00;id", ""}, {"systemctl restart\rnginx", ""}, {"echo '\x1b[0m'", ""}, {"echo 'a\nb'", ""}, {"echo '\\'", ""}, {"echo \xff", ""},
		{"echo 'open", ""}, {"echo \"open", ""}, {"a |", ""}, {"a |& b", ""}, {"a && ", ""}, {"'' a", ""},
		{strings.Repeat("a", MaxLine+1), ""}, {strings.Repeat("a;", MaxCommands+1), ""}, {strings.Repeat("a ", MaxWords+1), ""},
	} {
		l, err := Parse(c.line)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("%q: %v", c.line, err)
			}
			if c.want != "" {
				t.Errorf("%q: %v, want %q", c.line, err, c.want)
			}
			continue
		}
		if l.String() != c.want {
			t.Errorf("%q is %q, want %q", c.line, l, c.want)
		}
	}
}

func TestWith(t *testing.T) {
	l, err := Parse("uptime; systemctl status 'a b'")
	if err != nil {
		t.Fatal(err)
	}
	if got := l.With([]string{"", "/usr/bin/systemctl"}); got != "uptime; /usr/bin/systemctl status 'a b'" {
		t.Error(got)
	}
	if l, err = Parse("uptime 2>&1 | cat"); err != nil {
		t.Fatal(err)
	}
	if got := l.With([]string{"/usr/bin/uptime", "/bin/cat"}); got != "/bin/sh -c '/usr/bin/uptime 2>&1 | /bin/cat'" {
		t.Error(got)
	}
}

// TestShells: real shells read a line that was said again as the words that were
// understood.
func TestShells(t *testing.T) {
	words := []string{
		"a", "a b", "it's", `"`, "$HOME", "`id`", "*", "~", "{a,b}", "a=b", "if", "-", "-n", "!", "!!", "#x", "&", ";", "|", "<", "(", "ü", "=x", "''", "a'b'c", "%", "%self", "^",
		"; echo more ;", "!#", "!:0", "a!b", "!'", "hello! world",
	}
	line := "/usr/bin/printf '%s\\n'"
	for _, w := range words {
		line += " " + Quote(w)
	}
	all := map[string][]string{
		"sh": {"sh", "-c"}, "bash": {"bash", "-c"},
		"tcsh":    {servers.Program(t, "tcsh", "tcsh"), "-f", "-c"},
		"zsh":     {servers.Program(t, "zsh", "zsh"), "-f", "-c"},
		"fish":    {servers.Program(t, "fish", "fish"), "-N", "-c"},
		"mksh":    {servers.Program(t, "mksh", "mksh"), "-c"},
		"busybox": {servers.Program(t, "busybox", "busybox"), "sh", "-c"},
	}
	for name, sh := range all {
		if got := strings.Split(strings.TrimSuffix(ran(t, sh, line), "\n"), "\n"); !slices.Equal(got, words) {
			t.Errorf("%s reads %q as\n%q, want\n%q", name, line, got, words)
		}
	}
	for line, want := range map[string]string{
		"printf '%s.' one \\! 'it!' 2>/dev/null":             "one.!.it!.",
		"printf '%s.' \"it's\" >/dev/null; printf '%s.' two": "two.",
		"cat nothing 2>&1 >/dev/null | wc -l":                "1",
		"true || printf one && printf two":                   "two",
	} {
		l, err := Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		for name, sh := range all {
			if got := strings.TrimSpace(ran(t, sh, l.With(nil))); got != want {
				t.Errorf("%s does %q as %q: %q", name, line, l.With(nil), got)
			}
		}
	}
}

// ran is what a line says in a shell. It makes no file.
func ran(t *testing.T, sh []string, line string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), sh[0], append(slices.Clone(sh[1:]), line)...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %s", sh[0], err, out)
	}
	if made, err := os.ReadDir(cmd.Dir); err != nil || len(made) > 0 {
		t.Errorf("%s makes %v of %q: %v", sh[0], made, line, err)
	}
	return string(out)
}

// FuzzParse: what is said again is understood as the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"a '!b' \\!", "a 'b c' \"d\" | e && f; g 2>&1", "echo it\\'s", "x > y", "a\n\nb # c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		l, err := Parse(line)
		if err != nil {
			return
		}
		again, err := Parse(l.String())
		if err != nil {
			t.Fatalf("%q is said as %q: %v", line, l, err)
		}
		if len(again.commands) != len(l.commands) || !slices.Equal(again.joins, l.joins) {
			t.Fatalf("%q is said as %q", line, l)
		}
		for i := range l.commands {
			if !slices.Equal(again.commands[i].Argv, l.commands[i].Argv) || !slices.Equal(again.commands[i].Quiet, l.commands[i].Quiet) {
				t.Fatalf("%q is said as %q", line, l)
			}
		}
	})
}
