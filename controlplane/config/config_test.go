package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSampleIsGood loads what operators start from.
func TestSampleIsGood(t *testing.T) {
	c, err := Load("../../deploy/config/control.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.KeyFile == "" || len(c.Issuers) != 1 || c.Issuers[0].APIAudience == c.Issuers[0].DataAudience {
		t.Errorf("the sample says %+v", c)
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	const good = "dataDir: d\napi: {addr: ':1'}\nnodes: {addr: ':2'}\nissuers: [{name: i, url: 'https://i.example'}]\nadmins: [{group: g}]\n"
	for name, c := range map[string]struct{ from, to, want string }{
		"unknown key":       {"dataDir: d", "dataDir: d\ndatadirs: e", "datadirs"},
		"no folder":         {"dataDir: d", "", "dataDir is missing"},
		"no port":           {"addr: ':1'", "addr: localhost", "api.addr"},
		"no issuer":         {"issuers: [{name: i, url: 'https://i.example'}]", "", "issuers is missing"},
		"nameless issuer":   {"name: i, ", "", "issuers[0].name"},
		"issuer without a":  {"https://i.example", "i", "issuers[0].url"},
		"admin of nothing":  {"group: g", "", "admins[0]"},
		"admin of both":     {"group: g", "group: g, subject: s", "admins[0]"},
		"short lease":       {"dataDir: d", "dataDir: d\nleaseTTL: 1s", "leaseTTL"},
		"bucket of no name": {"dataDir: d", "dataDir: d\nrecordings: {s3: {region: r}}", "recordings.s3.bucket"},
		"password in sight": {"dataDir: d", "dataDir: d\nrecordings: {postgres: {url: 'postgres://u:p@h/d'}}", "passwordFile"},
		"no database":       {"dataDir: d", "dataDir: d\nrecordings: {postgres: {url: 'u'}}", "recordings.postgres.url"},
		"kept for a second": {"dataDir: d", "dataDir: d\nrecordings: {keep: 1s}", "recordings.keep"},
		"locked for ever":   {"dataDir: d", "dataDir: d\nrecordings: {keep: 48h, s3: {bucket: b, retention: 49h}}", "recordings.s3.retention: 49h0m0s is longer"},
		"no links":          {"dataDir: d", "dataDir: d\nurl: postern.example", "url: \"postern.example\" is not as https://HOST:PORT"},
		"links of two":      {"dataDir: d", "dataDir: d\nurl: https://postern.example/", "with nothing behind it"},
		"links in clear":    {"dataDir: d", "dataDir: d\nurl: http://postern.example", "url"},
		"debug for all":     {"dataDir: d", "dataDir: d\ndebug: 0.0.0.0:9", "debug: 0.0.0.0 is no loopback address"},
		"store of nowhere":  {"dataDir: d", "dataDir: d\netcd: {ca: c}", "etcd.endpoints is missing"},
		"key without cert":  {"dataDir: d", "dataDir: d\netcd: {endpoints: [e], key: k}", "cert and key"},
		"nobody's password": {"dataDir: d", "dataDir: d\netcd: {endpoints: [e], passwordFile: p}", "username and passwordFile"},
		"odd prefix":        {"dataDir: d", "dataDir: d\nrecordings: {s3: {bucket: b, prefix: p}}", "recordings.s3.prefix"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(good, c.from) {
				t.Fatalf("%q is not in the text", c.from)
			}
			file := filepath.Join(t.TempDir(), "control.yaml")
			if err := os.WriteFile(file, []byte(strings.Replace(good, c.from, c.to, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(file); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Load = %v, want an error with %q", err, c.want)
			}
		})
	}
}
