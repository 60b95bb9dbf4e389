package wall

import (
	"testing"
	"time"
)

const (
	jsonLine = `{"timestamp":"2026-11-25 12:00:01.250 UTC","user":"app","dbname":"shop","pid":77,"remote_host":"10.0.0.9","remote_port":5123,"error_severity":"FATAL","message":"password authentication failed for user \"app\""}` + "\n"
	csvLine  = `2026-11-25 12:00:01.250 UTC,"app","shop",77,"10.0.0.9:5123",65f,2,"authentication",2026-11-25 12:00:01 UTC,3/1,0,FATAL,28P01,"password authentication failed for user ""app""","Connection matched file ""pg_hba.conf"" line 1",,,,,,,,"","client backend",,0` + "\n"
	other    = `{"timestamp":"2026-11-25 12:00:02.000 UTC","message":"connection received: host=10.0.0.9"}` + "\n"
)

func TestRefusedLogins(t *testing.T) {
	at := time.Date(2026, 11, 25, 12, 0, 1, 250e6, time.UTC)
	for name, c := range map[string]struct {
		got  int
		want int
	}{
		"JSON":                {len(refusedJSON([]byte(other+jsonLine+"not json\n"), at)), 1},
		"JSON, before":        {len(refusedJSON([]byte(jsonLine), at.Add(time.Second))), 0},
		"CSV":                 {len(refusedCSV([]byte(csvLine+csvLine), at)), 2},
		"CSV, before":         {len(refusedCSV([]byte(csvLine), at.Add(time.Second))), 0},
		"somebody's own text": {len(refusedJSON([]byte(`{"timestamp":"2026-11-25 12:00:02 UTC","message":"x password authentication failed for user \"app\" y"}`), at)), 0},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", name, c.got, c.want)
		}
	}
	for _, all := range []int{0, 1} {
		var r = refusedJSON([]byte(jsonLine), at)[0]
		if all == 1 {
			r = refusedCSV([]byte(csvLine), at)[0]
		}
		if r.GetAccount() != "app" || r.GetHost() != "10.0.0.9" || !r.GetTime().AsTime().Equal(at) {
			t.Errorf("%v", r)
		}
	}
}

func FuzzRefusedLogins(f *testing.F) {
	f.Add([]byte(jsonLine + other))
	f.Add([]byte(csvLine))
	f.Fuzz(func(t *testing.T, log []byte) {
		for _, r := range append(refusedJSON(log, time.Time{}), refusedCSV(log, time.Time{})...) {
			if len(r.GetAccount()) > 4*128 || len(r.GetHost()) > 4*128 {
				t.Errorf("a long text: %v", r)
			}
		}
	})
}
