package servers

import (
	"context"
	"testing"

	"github.com/posterngate/postern/test/wait"
)

func TestEtcd(t *testing.T) {
	c := Etcd(t, 3)
	c.Kill(0)
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	defer cancel()
	if err := c.await(ctx, c.members[1]); err != nil {
		t.Errorf("two of three members have no quorum: %v", err)
	}
	if err := c.Restart(ctx, 0); err != nil {
		t.Errorf("a killed member does not come back: %v", err)
	}
}
