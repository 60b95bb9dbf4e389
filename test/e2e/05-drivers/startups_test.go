package drivers

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"sigs.k8s.io/yaml"

	"github.com/posterngate/postern/test/e2e/house"
)

// startups sends what clients that are not run here send on their own account.
func (s *shop) startups(t *testing.T) {
	var texts struct {
		Allowed map[string][]string // by client
		Refused map[string]string   // what the refusal says, by text
	}
	check(t, yaml.UnmarshalStrict(read(t, "testdata/startups.yaml"), &texts))
	for _, client := range slices.Sorted(maps.Keys(texts.Allowed)) {
		t.Run(client, func(t *testing.T) {
			c := s.connect(t, "sales-report.warehouse", pgx.QueryExecModeSimpleProtocol)
			for _, text := range texts.Allowed[client] {
				if _, err := c.Exec(t.Context(), text); err != nil {
					t.Errorf("%v\n\t%s", err, text)
				}
			}
		})
	}
	c := s.connect(t, "sales-report.warehouse", pgx.QueryExecModeSimpleProtocol)
	for text, reason := range texts.Refused {
		_, err := c.Exec(t.Context(), text)
		if pg := house.PgError(t, err); pg.Code != "42501" || !strings.Contains(pg.Message, reason) {
			t.Errorf("%v\n\t%s", err, text)
		}
	}
}
