package wall

import (
	"strings"
	"testing"
)

// TestCheckSaysWhatIsWrong: by its key, and before a join token is spent.
func TestCheckSaysWhatIsWrong(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"":                     func(*Config) {},
		"name is missing":      func(c *Config) { c.Name = "" },
		"name: ":               func(c *Config) { c.Name = "EU 1" },
		"dataDir is missing":   func(c *Config) { c.DataDir = "" },
		"controlPlane is":      func(c *Config) { c.ControlPlane = nil },
		"controlPlane[1]: ":    func(c *Config) { c.ControlPlane = []string{"c:1", "https://c:1"} },
		"debug: ":              func(c *Config) { c.Debug = ":9" },
		"telemetry.logLevel: ": func(c *Config) { c.Telemetry.LogLevel = "loud" },
	} {
		c := Config{Name: "wall-1", DataDir: "d", ControlPlane: []string{"c:1"}}
		change(&c)
		if err := c.Check(); (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Check = %v, want an error that begins with %q", err, want)
		}
	}
}
