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
	"github.com/posterngate/postern/pkg/trail"
)

// Load reads and checks a configuration, also for what only its parts can tell, and for the
// files that it names. It reaches nothing and writes nothing.
func Load(file string) (config.Config, error) {
	cfg, err := config.Load(file)
	if err == nil {
		if err = check(cfg); err != nil {
			err = fmt.Errorf("configuration %s: %w", file, err)
		}
	}
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
	return errors.Join(checkHosts("api", cfg.API), checkHosts("nodes", cfg.Nodes), checkKeys(cfg))
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
