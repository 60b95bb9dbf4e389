package wall

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/posterngate/postern/pkg/conf"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/telemetry"
)

// Config is everything that a wall can be told. Unknown keys are refused.
type Config struct {
	// Name is the wall's name: a DNS label of at most 30 characters. It must be the one
	// for which the join token was made, with the role wall.
	Name string `json:"name"`

	// DataDir holds the wall's identity, and nothing else.
	DataDir string `json:"dataDir"`

	// ControlPlane lists the control plane's node addresses, host:port. The first that
	// answers is used.
	ControlPlane []string `json:"controlPlane"`

	// JoinTokenFile holds the one-time join token; it is read on the first start only.
	JoinTokenFile string `json:"joinTokenFile"`

	// Every is how often each resource is compared with what its tasks ask for, beside
	// each change of policy. The default is 30s.
	Every conf.Duration `json:"every"`

	// Grace is how long views that a task no longer asks for stay readable to its
	// sessions, so that nodes can go over to the new ones. The default is 10s.
	Grace conf.Duration `json:"grace"`

	// Debug is where /livez, /readyz and /metrics are served; a loopback address, or
	// unix:PATH. Empty serves none.
	Debug string `json:"debug"`

	// Telemetry says where logs, traces and metrics go.
	Telemetry telemetry.Config `json:"telemetry"`
}

// Load reads and checks a file.
func Load(path string) (c Config, err error) {
	err = conf.Load(path, &c, c.Check)
	return c, err
}

// Check says what is missing or wrong, and fills in defaults.
func (c *Config) Check() error {
	switch {
	case c.Name == "":
		return errors.New("name is missing")
	case c.DataDir == "":
		return errors.New("dataDir is missing")
	case len(c.ControlPlane) == 0:
		return errors.New("controlPlane is missing: the addresses of the control plane for nodes")
	}
	if err := object.CheckName(c.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	for i, addr := range c.ControlPlane {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("controlPlane[%d]: %w", i, err)
		}
	}
	if err := errors.Join(telemetry.CheckDebug(c.Debug), c.Telemetry.Check()); err != nil {
		return err
	}
	c.Every = conf.Duration(c.Every.Or(30 * time.Second))
	c.Grace = conf.Duration(c.Grace.Or(10 * time.Second))
	return nil
}
