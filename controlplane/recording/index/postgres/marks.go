package postgres

import (
	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/controlplane/recording/index"
)

// marks are the columns of many.
type marks struct {
	day                                    []int32
	no, minute, first, last, begin, end, n []int64
}

func (s *marks) add(m *made, p *index.Span) {
	s.day, s.no, s.minute = append(s.day, int32(m.Day)), append(s.no, m.no), append(s.minute, p.Minute)
	s.first, s.last, s.n = append(s.first, int64(p.First)), append(s.last, int64(p.Last)), append(s.n, p.Statements)
	s.begin, s.end = append(s.begin, p.Begin.UnixMicro()), append(s.end, p.End.UnixMicro())
}

func queueMarks(b *pgx.Batch, list []made) {
	var spans, said, uses marks
	var wordings [][16]byte
	var names, masks []string
	var roles []int16
	for i := range list {
		m := &list[i]
		for j := range m.Spans {
			spans.add(m, &m.Spans[j])
		}
		for j := range m.Said {
			said.add(m, &m.Said[j].Span)
			wordings = append(wordings, m.Wordings[m.Said[j].Wording].ID)
		}
		for j := range m.Uses {
			u := &m.Uses[j]
			uses.add(m, &u.Span)
			names, masks, roles = append(names, u.Column), append(masks, u.Mask), append(roles, int16(u.Role))
		}
	}
	const grow = `first_number=least(m.first_number, excluded.first_number), last_number=greatest(m.last_number, excluded.last_number)`
	const longer = grow + `, first_us=least(m.first_us, excluded.first_us), last_us=greatest(m.last_us, excluded.last_us), statements=m.statements+excluded.statements`
	if len(spans.no) > 0 {
		b.Queue(`INSERT INTO span AS m (day, minute, session_no, first_number, last_number, first_us, last_us, statements)
			SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
			ON CONFLICT (minute, session_no, day) DO UPDATE SET `+longer,
			spans.day, spans.minute, spans.no, spans.first, spans.last, spans.begin, spans.end, spans.n)
	}
	if len(said.no) > 0 {
		b.Queue(`INSERT INTO said AS m (day, wording, minute, session_no, first_number, last_number)
			SELECT * FROM unnest($1::integer[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
			ON CONFLICT (wording, minute, session_no, day) DO UPDATE SET `+grow,
			said.day, wordings, said.minute, said.no, said.first, said.last)
	}
	if len(uses.no) > 0 {
		b.Queue(`INSERT INTO touch AS m (day, name, minute, session_no, role, mask, first_number, last_number, first_us, last_us, statements)
			SELECT * FROM unnest($1::integer[], $2::text[], $3::bigint[], $4::bigint[], $5::smallint[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
			ON CONFLICT (name, minute, session_no, role, mask, day) DO UPDATE SET `+longer,
			uses.day, names, uses.minute, uses.no, roles, masks, uses.first, uses.last, uses.begin, uses.end, uses.n)
	}
}
