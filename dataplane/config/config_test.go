package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/conf"
	"github.com/posterngate/postern/pkg/postern"
)

func load(path string) (c Config, err error) {
	err = conf.Load(path, &c, c.Check)
	return c, err
}

// TestSampleIsGood loads what operators start from.
func TestSampleIsGood(t *testing.T) {
	c, err := load("../../deploy/config/node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.Listeners[postern.Postgres].Public == "" || time.Duration(c.Drain) != 30*time.Second || c.Spool.MaxBytes != 1<<30 {
		t.Errorf("the sample says %+v", c)
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	const good = "name: eu-1\ndataDir: d\ncontrolPlane: ['c:1']\nlisteners: {postgres: {addr: '127.0.0.1:0'}}\n"
	for name, c := range map[string]struct{ from, to, want string }{
		"unknown key":      {"name: eu-1", "name: eu-1\nnames: m", "names"},
		"no name":          {"name: eu-1", "", "name is missing"},
		"no folder":        {"dataDir: d", "", "dataDir is missing"},
		"no control plane": {"controlPlane: ['c:1']", "", "controlPlane is missing"},
		"no listener":      {"listeners: {postgres: {addr: '127.0.0.1:0'}}", "", "listeners is missing"},
		"no port":          {"127.0.0.1:0", "127.0.0.1", "listeners.postgres.addr"},
		"public in clear":  {"addr: '127.0.0.1:0'", "addr: '0.0.0.0:0', allowPlaintext: true", "allowPlaintext"},
		"odd public":       {"addr: '127.0.0.1:0'", "addr: '127.0.0.1:0', public: here", "public"},
		"public of none":   {"addr: '127.0.0.1:0'", "addr: ':5432'", "listeners.postgres.public"},
		"public of all":    {"addr: '127.0.0.1:0'", "addr: '127.0.0.1:0', public: '0.0.0.0:5432'", "listeners.postgres.public"},
		"odd name":         {"name: eu-1", "name: EU 1", "name: \"EU 1\" is not a DNS label"},
		"no node port":     {"['c:1']", "['c:1', 'https://c:1']", "controlPlane[1]"},
		"debug for all":    {"name: eu-1", "name: eu-1\ndebug: ':9'", "debug:"},
		"less than none":   {"addr: '127.0.0.1:0'", "addr: '127.0.0.1:0', maxConns: -1", "listeners.postgres.maxConns"},
		"no unit":          {"name: eu-1", "name: eu-1\ndrain: 30", "unit"},
		"a truth value":    {"name: eu-1", "name: no", "quotes"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(good, c.from) {
				t.Fatalf("%q is not in the text", c.from)
			}
			file := filepath.Join(t.TempDir(), "node.yaml")
			if err := os.WriteFile(file, []byte(strings.Replace(good, c.from, c.to, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := load(file); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("load = %v, want an error with %q", err, c.want)
			}
		})
	}
}
