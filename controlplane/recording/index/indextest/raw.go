package indextest

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/postern"
)

// raw has sessions of which something raw is kept: that has a row for its chain, is no
// session, and stays as long as its session is held.
func raw(t *testing.T, x index.Index) {
	ctx := context.Background()
	all := []string{"s-1", "s-1_raw", "s-2", "s-2_raw", "_raw"}
	for _, id := range all {
		u := update(id, 0, 0)
		u.Session.EndTime, u.Session.Recording = timestamppb.New(began.Add(time.Hour)), "sealed"
		must(t, x.Commit(ctx, u))
	}
	sessions, err := x.Sessions(ctx, index.Filter{Limit: 10})
	must(t, err)
	who, err := x.Who(ctx, index.Who{Limit: 10})
	must(t, err)
	usage, err := x.Usage(ctx, index.Usage{})
	must(t, err)
	if len(sessions) != 2 || len(who) != 2 || len(usage) != 1 || usage[0].Sessions != 2 {
		t.Errorf("%d sessions, %d were there, used %v", len(sessions), len(who), usage)
	}
	if h, err := x.Head(ctx, "s-1_raw"); err != nil || h.Next != 1 {
		t.Errorf("%+v, %v", h, err)
	}
	must(t, x.Hold(ctx, "s-2", "case 7"))
	old, err := x.Old(ctx, began.Add(48*time.Hour))
	must(t, err)
	var ids []string
	for _, s := range old {
		ids = append(ids, s.GetId())
	}
	slices.Sort(ids)
	if want := []string{"_raw", "s-1", "s-1_raw"}; !slices.Equal(ids, want) {
		t.Errorf("old are %v, want %v", ids, want)
	}
	var ask []postern.SessionID
	for _, id := range all {
		ask = append(ask, postern.SessionID(id))
	}
	gone, err := x.Forget(ctx, ask)
	must(t, err)
	if slices.Sort(gone); !slices.Equal(gone, []postern.SessionID{"_raw", "s-1", "s-1_raw"}) {
		t.Errorf("went %v", gone)
	}
	must(t, x.Hold(ctx, "s-2", ""))
	if gone, err = x.Forget(ctx, ask); err != nil || len(gone) != 2 {
		t.Errorf("then went %v, %v", gone, err)
	}
}
