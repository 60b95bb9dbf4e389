package postgres

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/index"
)

type wordingKey struct {
	id  index.WordingID
	day index.Day
}

const maxWordings = 1 << 16

// A made update is one whose session stood where it was expected.
type made struct {
	*index.Update
	*index.Digest
	no int64
}

// commit implements index.Batcher's Commit: sessions first, which tells what conflicts,
// then all rows of the others, each table's in arrays, in one round trip. Sessions and
// wordings are written in order, so that two replicas wait for each other in one
// direction only.
func (x *Index) commit(ctx context.Context, updates []*index.Update) (each []error, err error) {
	defer func() {
		if refused(err) {
			err = fmt.Errorf("%w: %w", index.ErrRefused, err)
		}
		if err != nil {
			err = fmt.Errorf("index: commit %d chunks: %w", len(updates), err)
		}
	}()
	digests := make([]*index.Digest, len(updates))
	order := make([]int, len(updates))
	for i, u := range updates {
		if digests[i], err = index.DigestOf(u); err != nil {
			return nil, err
		}
		if err := x.partition(ctx, digests[i].Day); err != nil {
			return nil, err
		}
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Compare(updates[a].Session.GetId(), updates[b].Session.GetId())
	})
	tx, err := x.pool.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	sessions := &pgx.Batch{}
	for _, i := range order {
		if err := queueSession(sessions, updates[i], digests[i].Day); err != nil {
			return nil, err
		}
	}
	each = make([]error, len(updates))
	var winners []made
	results := tx.SendBatch(ctx, sessions)
	for _, i := range order {
		var no int64
		switch err := results.QueryRow().Scan(&no); {
		case errors.Is(err, pgx.ErrNoRows):
			each[i] = index.ErrConflict
		case err != nil:
			return nil, errors.Join(err, results.Close())
		default:
			winners = append(winners, made{updates[i], digests[i], no})
		}
	}
	if err := results.Close(); err != nil {
		return nil, err
	}
	rows := &pgx.Batch{}
	added := x.queueWordings(rows, winners)
	queueChunks(rows, winners)
	queuePacks(rows, winners)
	queueStatements(rows, winners)
	queueMarks(rows, winners)
	if rows.Len() > 0 {
		if err := tx.SendBatch(ctx, rows).Close(); err != nil {
			return nil, err
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, err
	}
	x.remember(added)
	return each, nil
}

// refused reports whether the server says that it cannot keep what it was given. What breaks a
// constraint is not among it, for the schema may be what is wrong.
func refused(err error) bool {
	var said *pgconn.PgError
	if !errors.As(err, &said) {
		return false
	}
	switch said.Code {
	case "22001", "22003", "22008", // a text, a number, a time that its column does not hold
		"22021", "22P05", // a character that is none, or not of the database's encoding
		"54000": // a row or its index is too large
		return true
	}
	return false
}

func micro(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return t.AsTime().UnixMicro()
}

const newSession = `INSERT INTO session (id, day, subject, workload, groups, grant_id, task, resource, account, database_name, protocol, node, region,
		client_address, client_host, client_program, epoch, revision, start_us, last_us, end_us, end_reason, statements, denied, row_count, bytes, recording,
		next, previous, span_first, span_last, span_open, open_from, sealed, shipper, events, last_statement, node_key, actors, doubt)
	VALUES ($20,$21,$22,$23,$24,$25,$26,$27,$28,$29,$30,$31,$32,$33,$34,$35,$36,$37,$38,$1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$39,$40)
	ON CONFLICT DO NOTHING RETURNING no`

const laterSession = `UPDATE session SET last_us=greatest(last_us, $1), end_us=$2, end_reason=$3, statements=$4, denied=$5, row_count=$6, bytes=$7, recording=$8,
		next=$9, previous=$10, span_first=$11, span_last=$12, span_open=$13, open_from=$14, sealed=$15, shipper=$16, events=$17, last_statement=$18, node_key=$19, account=$21
	WHERE id=$20 AND next=$22 RETURNING no`

// queueSession makes or changes the row, if the chain stands just before the update.
func queueSession(b *pgx.Batch, u *index.Update, day index.Day) error {
	s, h := u.Session, u.Head
	args := []any{
		micro(s.GetLastTime()), micro(s.GetEndTime()), s.GetEndReason(), h.Tally.Statements, h.Tally.Denied, h.Tally.Rows, h.Tally.Bytes, s.GetRecording(),
		int64(h.Next), h.Previous[:], int64(h.Span.First), int64(h.Span.Last), h.Span.Open, int64(h.OpenFrom), h.Sealed, string(h.Node),
		h.Tally.Events, int64(h.Tally.Statement), append([]byte{}, h.NodeKey...), s.GetId(),
	}
	if u.From() > 0 {
		b.Queue(laterSession, append(args, s.GetAccount(), int64(u.From()))...)
		return nil
	}
	groups, err := json.Marshal(append([]string{}, s.GetGroups()...))
	if err != nil {
		return err
	}
	actors, err := json.Marshal(append([]string{}, s.GetActors()...))
	if err != nil {
		return err
	}
	b.Queue(newSession, append(args, int32(day), s.GetSubject(), s.GetWorkload(), string(groups), s.GetGrant(), s.GetTask(), s.GetResource(), s.GetAccount(),
		s.GetDatabase(), s.GetProtocol(), s.GetNode(), s.GetRegion(), s.GetClientAddress(), host(s.GetClientAddress()), s.GetClientProgram(),
		s.GetVersion().GetEpoch(), s.GetVersion().GetRevision(), micro(s.GetStartTime()), string(actors), s.GetDoubt())...)
	return nil
}

func host(address string) string {
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return h
}

// queueWordings writes the wordings that are not known to be there.
func (x *Index) queueWordings(b *pgx.Batch, list []made) []wordingKey {
	type wording struct {
		key  wordingKey
		text *index.Wording
	}
	var fresh []wording
	x.mu.Lock()
	for _, m := range list {
		for i := range m.Wordings {
			key := wordingKey{m.Wordings[i].ID, m.Day}
			if _, ok := x.wordings[key]; !ok {
				fresh = append(fresh, wording{key, &m.Wordings[i]})
			}
		}
	}
	x.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	slices.SortFunc(fresh, func(a, b wording) int {
		return cmp.Or(cmp.Compare(a.key.day, b.key.day), bytes.Compare(a.key.id[:], b.key.id[:]))
	})
	fresh = slices.CompactFunc(fresh, func(a, b wording) bool { return a.key == b.key })
	var days []int32
	var ids [][16]byte
	var texts, touched, words []string
	keys := make([]wordingKey, 0, len(fresh))
	for _, w := range fresh {
		keys = append(keys, w.key)
		days, ids = append(days, int32(w.key.day)), append(ids, w.key.id)
		texts, touched = append(texts, w.text.Text), append(touched, w.text.Touched)
		said := "" // the words of a form are those of packs
		if !w.text.Form {
			said = strings.Join(index.Words(w.text.Text), " ")
		}
		words = append(words, said)
	}
	b.Queue(`INSERT INTO wording (day, id, text, touched, words)
		SELECT d, i, t, u, array_to_tsvector(string_to_array(w, ' ')) FROM unnest($1::integer[], $2::uuid[], $3::text[], $4::text[], $5::text[]) AS r(d, i, t, u, w)
		ON CONFLICT DO NOTHING`, days, ids, texts, touched, words)
	return keys
}

// remember keeps what was written, so that it is not sent again.
func (x *Index) remember(added []wordingKey) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.wordings)+len(added) > maxWordings {
		clear(x.wordings)
	}
	for _, k := range added {
		x.wordings[k] = struct{}{}
	}
}

func queueChunks(b *pgx.Batch, list []made) {
	var days []int32
	var nos, numbers, sizes []int64
	var hashes [][]byte
	for _, m := range list {
		for i := range m.Chunks {
			days, nos, numbers = append(days, int32(m.Day)), append(nos, m.no), append(numbers, int64(m.From())+int64(i))
			hashes, sizes = append(hashes, m.Chunks[i].Hash[:]), append(sizes, int64(m.Chunks[i].Size))
		}
	}
	if len(nos) > 0 {
		b.Queue(`INSERT INTO chunk (day, session_no, number, hash, size) SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bigint[])`,
			days, nos, numbers, hashes, sizes)
	}
}

// statements are the columns of many.
type statements struct {
	day                         []int32
	no, number, seq, at         []int64
	wording                     []*[16]byte
	verdict                     []int16
	rule, reason                []string
	settled                     []*int16
	rows, bytes, affected, took []*int64
	code, tag                   []*string
}

func queuePacks(b *pgx.Batch, list []made) {
	var days []int32
	var nos, first, last, begin, end []int64
	var bodies [][]byte
	var words []string
	for _, m := range list {
		if p := m.Pack; p != nil {
			days, nos, first, last = append(days, int32(m.Day)), append(nos, m.no), append(first, int64(p.First)), append(last, int64(p.Last))
			begin, end, bodies = append(begin, p.Begin.UnixMicro()), append(end, p.End.UnixMicro()), append(bodies, p.Body)
			words = append(words, p.Words)
		}
	}
	if len(nos) > 0 {
		b.Queue(`INSERT INTO pack (day, session_no, first_number, last_number, first_us, last_us, body, words)
			SELECT d, n, f, l, b, e, p, array_to_tsvector(string_to_array(w, ' '))
			FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[], $8::text[]) AS r(d, n, f, l, b, e, p, w)`,
			days, nos, first, last, begin, end, bodies, words)
	}
}

// queueStatements writes the statements that have rows of their own.
func queueStatements(b *pgx.Batch, list []made) {
	var begun, ended statements
	for _, m := range list {
		outcomes := make(map[uint64]*index.Outcome, len(m.Ended))
		for _, i := range m.Ended {
			outcomes[m.Outcomes[i].Number] = &m.Outcomes[i]
		}
		last := make(map[uint64]int, len(m.Rows)) // the last judgement of each
		for _, i := range m.Rows {
			last[m.Statements[i].Number] = i
		}
		worded := map[uint64]int{}
		for _, i := range m.Rows {
			s := &m.Statements[i]
			if m.Of[i] >= 0 {
				worded[s.Number] = m.Of[i]
			}
			if last[s.Number] != i {
				continue
			}
			var wording *[16]byte
			if at, ok := worded[s.Number]; ok {
				id := [16]byte(m.Wordings[at].ID)
				wording = &id
			}
			begun.day, begun.no, begun.number, begun.seq = append(begun.day, int32(m.Day)), append(begun.no, m.no), append(begun.number, int64(s.Number)), append(begun.seq, int64(s.Seq))
			begun.at, begun.wording = append(begun.at, s.Time.UnixMicro()), append(begun.wording, wording)
			begun.verdict, begun.rule, begun.reason = append(begun.verdict, int16(s.Verdict)), append(begun.rule, s.Rule), append(begun.reason, s.Reason)
			begun.outcome(outcomes[s.Number])
			delete(outcomes, s.Number)
		}
		for _, i := range m.Ended {
			if o := &m.Outcomes[i]; outcomes[o.Number] != nil {
				ended.day, ended.no, ended.number = append(ended.day, int32(m.Day)), append(ended.no, m.no), append(ended.number, int64(o.Number))
				ended.outcome(o)
			}
		}
	}
	if len(begun.no) > 0 {
		b.Queue(`INSERT INTO statement AS st (day, session_no, number, seq, time_us, wording, verdict, rule, reason, settled, row_count, bytes, affected, code, tag, duration_us)
			SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::uuid[], $7::smallint[], $8::text[], $9::text[],
				$10::smallint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::text[], $15::text[], $16::bigint[])
			ON CONFLICT (session_no, number, day) DO UPDATE SET seq=excluded.seq, time_us=excluded.time_us, wording=coalesce(excluded.wording, st.wording),
				verdict=excluded.verdict, rule=excluded.rule, reason=excluded.reason,
				settled=coalesce(excluded.settled, st.settled), row_count=coalesce(excluded.row_count, st.row_count), bytes=coalesce(excluded.bytes, st.bytes),
				affected=coalesce(excluded.affected, st.affected), code=coalesce(excluded.code, st.code), tag=coalesce(excluded.tag, st.tag),
				duration_us=coalesce(excluded.duration_us, st.duration_us)`,
			begun.day, begun.no, begun.number, begun.seq, begun.at, begun.wording, begun.verdict, begun.rule, begun.reason,
			begun.settled, begun.rows, begun.bytes, begun.affected, begun.code, begun.tag, begun.took)
	}
	if len(ended.no) > 0 {
		b.Queue(`UPDATE statement st SET settled=r.settled, row_count=r.row_count, bytes=r.bytes, affected=r.affected, code=r.code, tag=r.tag, duration_us=r.duration_us
			FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::text[], $10::bigint[])
				AS r(day, session_no, number, settled, row_count, bytes, affected, code, tag, duration_us)
			WHERE st.session_no=r.session_no AND st.number=r.number AND st.day=r.day`,
			ended.day, ended.no, ended.number, ended.settled, ended.rows, ended.bytes, ended.affected, ended.code, ended.tag, ended.took)
	}
}

// outcome appends what became of a statement, or nothing.
func (s *statements) outcome(o *index.Outcome) {
	var settled *int16
	var rows, size, affected, took *int64
	var code, tag *string
	if o != nil {
		v, d := int16(o.Verdict), int64(o.Duration/time.Microsecond)
		settled, rows, size, affected, took, code, tag = &v, &o.Rows, &o.Bytes, &o.Affected, &d, &o.Code, &o.Tag
	}
	s.settled, s.rows, s.bytes, s.affected = append(s.settled, settled), append(s.rows, rows), append(s.bytes, size), append(s.affected, affected)
	s.took, s.code, s.tag = append(s.took, took), append(s.code, code), append(s.tag, tag)
}
