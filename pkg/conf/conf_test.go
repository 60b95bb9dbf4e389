package conf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

type sample struct {
	Addr  string              `json:"addr"`
	Wait  Duration            `json:"wait"`
	Tries int                 `json:"tries"`
	Most  Count               `json:"most"`
	Loud  bool                `json:"loud"`
	More  *sample             `json:"more"`
	List  []sample            `json:"list"`
	Named map[protocol]sample `json:"named"`
}

type protocol string

func TestParse(t *testing.T) {
	s := sample{Addr: "kept"}
	if err := Parse([]byte("wait: 90s\n"), &s); err != nil {
		t.Fatal(err)
	}
	if s.Addr != "kept" || s.Wait.Or(time.Hour) != 90*time.Second {
		t.Errorf("got %+v", s)
	}
	if (sample{}).Wait.Or(time.Hour) != time.Hour {
		t.Error("an unset duration did not take the default")
	}
	for text, want := range map[string]string{
		"\naddr: a\nadr: x\n":                   "line 3: adr: there is no such key; there are addr, wait",
		"addr: n\n":                             "line 1: addr: n is read as true or false; put it in quotes",
		"addr: True\n":                          "quotes",
		"addr: 1\n":                             "line 1: addr: 1 is read as something else than a text; put it in quotes",
		"addr: [a]\n":                           "line 1: addr: is a list, and a text is wanted",
		"wait: 90\n":                            "line 1: wait: 90 is not a duration with a unit",
		"addr: a\nwait: 0s\n":                   `line 2: wait: "0s" is not above zero; leave the key out for the default`,
		"wait: -1m\n":                           `line 1: wait: "-1m" is not above zero`,
		"list:\n- wait: 5s\n- wait: soon\n":     `line 3: list[1].wait: "soon" is not a duration with a unit`,
		"wait: {a: b}\n":                        "line 1: wait: a map is not a duration",
		"addr: a\nmost: 0\n":                    "line 2: most: 0 is not above zero; leave the key out for the default",
		"most: -1\n":                            "line 1: most: -1 is not above zero",
		"most: many\n":                          `line 1: most: is "many", and a whole number is wanted`,
		"most: 1.5\n":                           "a whole number is wanted",
		"most: [1]\n":                           "line 1: most: is a list, and a whole number is wanted",
		"addr: a\naddr: b":                      "line 2: addr: is there twice",
		"addr: a\nADDR: b":                      "line 2: ADDR: there is no such key",
		"Addr: a":                               "line 1: Addr: there is no such key",
		"addr: a\n---\naddr: b\n":               "a second document begins",
		"addr: a\n---\n":                        "a second document begins",
		"tries: many\n":                         `line 1: tries: is "many", and a whole number is wanted`,
		"tries: 1.5\n":                          "a whole number is wanted",
		"loud: 1\n":                             `line 1: loud: is "1", and true or false is wanted`,
		"more: [x]\n":                           "line 1: more: is a list, and keys with values are wanted",
		"list: x\n":                             `line 1: list: is "x", and a list is wanted`,
		"named:\n  a: {addr: b}\n  a: {}\n":     "line 3: named.a: is there twice",
		"named:\n  ssh:\n    more: {wait: 5}\n": "line 3: named.ssh.more.wait: 5 is not a duration",
		"[addr]\n":                              "line 1: is a list, and keys with values are wanted",
		"addr: a\n\twait: 5s\n":                 "line 2",
		"addr: \"\x00\"\n":                      "control characters",
	} {
		if err := Parse([]byte(text), new(sample)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v, want an error with %q", text, err, want)
		}
	}
}

func TestParseReads(t *testing.T) {
	const text = "\ufeffaddr: 'n' # a text\r\ntries: 3\r\nmost: 0x10\r\nloud: true\nmore: &m\n  addr: |-\n    a\n    b\nlist: [{tries: -1}, *m]\nnamed: {ssh: {addr: 0.0.0.0:22, wait: 1h}}\nwait:\n"
	got, kept := sample{Wait: 5}, sample{Addr: "a\nb"}
	want := sample{Addr: "n", Wait: 5, Tries: 3, Most: 16, Loud: true, More: &kept, List: []sample{{Tries: -1}, kept}, Named: map[protocol]sample{"ssh": {Addr: "0.0.0.0:22", Wait: Duration(time.Hour)}}}
	if err := Parse([]byte(text), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, nothing := range []string{"", "# a comment\n", "---\n"} {
		if err := Parse([]byte(nothing), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v", nothing, got, err)
		}
	}
}

// TestCheckNamesTheLine: what only a check can tell has the line of its key, too, or of what there is of it.
func TestCheckNamesTheLine(t *testing.T) {
	const text = "addr: a\nlist:\n- addr: b\n- {wait: 5s}\nmore: &m\n  addr: c\nnamed:\n  ssh: *m\n"
	file := filepath.Join(t.TempDir(), "sample.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for said, line := range map[string]int{
		"addr: is odd": 1, "list[0].addr is odd": 3, "list[1].addr is missing": 4, "list[2] is missing": 2, "list is short": 2, "named.ssh.addr: is odd": 6,
		"wait is missing": 0, "more.more.addr: is missing": 5, "the whole is odd": 0, "[addr]": 0, "": 0,
	} {
		want := said
		if line > 0 {
			want = fmt.Sprintf("line %d: %s", line, said)
		}
		odd := errors.New(said)
		err := Load(file, new(sample), func() error { return nil }, func() error { return odd })
		if err == nil || err.Error() != "configuration "+file+": "+want || !errors.Is(err, odd) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	err := Load(file, new(sample), func() error { return errors.Join(errors.New("list: is short"), errors.New("addr: is odd")) })
	if err == nil || !strings.HasSuffix(err.Error(), ": line 2: list: is short\nline 1: addr: is odd") {
		t.Error(err)
	}
}
