package gate

import (
	"testing"

	"github.com/posterngate/postern/dataplane/budget"
)

// TestAhead: what one execution sets aside beyond its need leaves most to others.
func TestAhead(t *testing.T) {
	b := &budget.Budget{}
	one := &allotment{meter: &b.Rows, limit: 100, most: -1}
	if got, left := one.more(b, 4, rowsAhead), b.Rows.Left(100); got != 4+25 || left != 71 {
		t.Errorf("%d of 100 were set aside for 4, and %d are left", got, left)
	}
	// Nor is more set aside than the execution may have.
	two := &allotment{meter: &b.Rows, limit: 100, most: 6}
	if got, left := two.more(b, 4, rowsAhead), b.Rows.Left(100); got != 6 || left != 65 {
		t.Errorf("%d were set aside for one that may have 6, and %d are left", got, left)
	}
}
