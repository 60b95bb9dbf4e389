package vault

import "testing"

// TestAccessKeys: what Vault's engine for AWS answers is a login, as any other.
func TestAccessKeys(t *testing.T) {
	for name, c := range map[string]struct {
		data             map[string]any
		id, secret, more string
	}{
		"password":      {map[string]any{"username": "u", "password": "p"}, "u", "p", ""},
		"user of IAM":   {map[string]any{"access_key": "AKIA1", "secret_key": "s", "security_token": nil}, "AKIA1", "s", ""},
		"temporary":     {map[string]any{"access_key": "ASIA1", "secret_key": "s", "security_token": "t"}, "ASIA1", "s", "t"},
		"by other name": {map[string]any{"access_key": "ASIA1", "secret_key": "s", "session_token": "t"}, "ASIA1", "s", "t"},
		"half":          {map[string]any{"access_key": "AKIA1"}, "", "", ""},
	} {
		got, err := userAndPassword("aws/creds/x", c.data)
		if (err == nil) != (c.id != "") || got.GetAccount() != c.id || string(got.GetPassword()) != c.secret || string(got.GetSessionToken()) != c.more {
			t.Errorf("%s: %q %v", name, got.GetAccount(), err)
		}
	}
}
