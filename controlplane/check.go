package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/audit/tree"
	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/controlplane/credential/vault"
	"github.com/posterngate/postern/controlplane/identity"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/recording/export"
	"github.com/posterngate/postern/pkg/conf"
	"github.com/posterngate/postern/pkg/trail"
)

// Load reads and checks a configuration, also for what only its parts can tell, and for the
// files that it names. It reaches nothing and writes nothing.
func Load(file string) (cfg config.Config, err error) {
	err = conf.Load(file, &cfg, cfg.Check, func() error { return check(cfg) })
	return cfg, err
}

func check(cfg config.Config) error {
	silent := slog.New(slog.DiscardHandler) // what is only warned of is so once it starts
	all, err := issuers(cfg)
	if err != nil {
		return err
	}
	if _, err := identity.New(context.Background(), identity.Config{Issuers: all, Logger: silent}); err != nil {
		return err
	}
	if _, err := authz.New(authz.Config{Admins: admins(cfg.Admins)}); err != nil {
		return err
	}
	if cfg.Vault != nil {
		if _, err := vault.New(vaultConfig(*cfg.Vault, silent)); err != nil {
			return err
		}
	}
	if _, err := storeConfig(cfg, silent); err != nil {
		return err
	}
	if _, err := channels(cfg.Channels); err != nil {
		return err
	}
	return errors.Join(checkHosts("api", cfg.API), checkHosts("nodes", cfg.Nodes), checkRecordings(&cfg.Recordings, silent), checkKeys(cfg))
}

// checkRecordings refuses files that cannot be read, which an object store's library would pass
// over in silence, and a collector that nothing could be sent to.
func checkRecordings(cfg *config.Recordings, log *slog.Logger) error {
	var named [][2]string
	if s := cfg.S3; s != nil {
		named = append(named, [2]string{"s3.ca", s.CA}, [2]string{"s3.credentialsFile", s.CredentialsFile})
	}
	if p := cfg.Postgres; p != nil {
		named = append(named, [2]string{"postgres.passwordFile", p.PasswordFile})
	}
	for _, one := range named {
		if one[1] == "" {
			continue
		}
		if _, err := os.ReadFile(one[1]); err != nil {
			return fmt.Errorf("recordings.%s: %w", one[0], err)
		}
	}
	if cfg.ExportOTLP == "" {
		return nil
	}
	o, err := export.DialOTLP(cfg.ExportOTLP, cfg.ExportOTLPCA, log) // which connects to nobody yet
	if err != nil {
		return fmt.Errorf("recordings.exportOTLP: %w", err)
	}
	return o.Close()
}

// checkHosts refuses names for which no certificate could be made, at each connection.
func checkHosts(key string, l config.Listener) error {
	for _, host := range hosts(l) {
		if err := authority.CheckHost(host); err != nil && net.ParseIP(host) == nil {
			return fmt.Errorf("%s.hosts: %w", key, err)
		}
	}
	return nil
}

// checkKeys reads the key files that there are; those that are missing are made when it starts
// for the first time.
func checkKeys(cfg config.Config) error {
	if _, err := os.Stat(cfg.KeyFile); !errors.Is(err, fs.ErrNotExist) {
		if _, err := sealed.OpenKeyFile(cfg.KeyFile); err != nil {
			return err
		}
	}
	if _, err := os.Stat(cfg.AuditKey); !errors.Is(err, fs.ErrNotExist) {
		_, err := tree.OpenKey(cfg.AuditKey)
		return err
	}
	log, err := trail.Open(cfg.AuditDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("auditDir: %w", err)
	}
	return errors.Join(auditKeyThere(cfg, log), log.Close())
}
