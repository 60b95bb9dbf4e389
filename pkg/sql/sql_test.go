package sql

import "testing"

// TestSize: what is known of each table and column counts, however short the text is.
func TestSize(t *testing.T) {
	of := func(tables, outputs int) int {
		f := Facts{Statements: []Statement{{Tables: make([]Table, tables), Outputs: make([]Output, outputs)}}}
		return f.Size()
	}
	if (&Facts{}).Size() != 0 || of(0, 0) <= 0 || of(1, 0) <= of(0, 0) || of(0, 1600)-of(0, 0) != 1600*(of(0, 1)-of(0, 0)) {
		t.Errorf("of nothing %d, a table %d, 1600 columns %d", of(0, 0), of(1, 0), of(0, 1600))
	}
}
