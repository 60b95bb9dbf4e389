package dataplane

import (
	"context"
	"errors"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/gate"
	"github.com/posterngate/postern/dataplane/lease"
	"github.com/posterngate/postern/dataplane/session"
	"github.com/posterngate/postern/dataplane/spool"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// records lets sessions keep their story in the spool.
type records struct{ spool *spool.Spool }

func (r records) Healthy() error { return r.spool.Healthy() }

func (r records) Begin(o gate.Opened) (rec, raw gate.Recorder, err error) {
	meta := record.Session{
		ID: o.Session, Subject: o.Grant.Subject.Name, Groups: o.Grant.Subject.Groups, Workload: o.Grant.Subject.Workload, Actors: o.Grant.Subject.Actors(),
		Grant: o.Grant.ID, Task: o.Task, Resource: o.Resource, Protocol: o.Protocol, Node: o.Node, Region: o.Region,
		ClientAddress: o.ClientAddress, ClientProgram: o.ClientProgram, Version: o.Version, Level: o.Level, Database: o.Database, Raw: o.StoreRaw,
	}
	masked, err := r.spool.Session(meta)
	if err != nil || !o.StoreRaw {
		return recorder{masked}, nil, err
	}
	unmasked, err := r.spool.Raw(masked, meta)
	if err != nil {
		return nil, nil, errors.Join(err, masked.Close("what its masks hide could not be recorded"))
	}
	return recorder{masked}, recorder{unmasked}, nil
}

type recorder struct{ *spool.Recorder }

func (r recorder) Record(e *record.Event, m policy.RecordMode) error {
	return r.Recorder.Record(e, mode(m))
}

// mode is the spool's word for what policy asks; what is not known is the strictest.
func mode(m policy.RecordMode) spool.Mode {
	switch m {
	case policy.Disk:
		return spool.Disk
	case policy.Local:
		return spool.Local
	case policy.Async:
		return spool.Async
	case policy.Remote:
	}
	return spool.Remote
}

// leases lets sessions borrow from the book.
type leases struct{ book *lease.Book }

func (l leases) Take(ctx context.Context, s postern.SessionID, g postern.GrantID, r postern.ResourceName, p engine.Purpose) (session.Loan, error) {
	got, err := l.book.Take(ctx, s, g, r, p)
	if err != nil {
		return nil, err
	}
	return got, nil
}
