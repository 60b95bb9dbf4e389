package postgres

import (
	"encoding/binary"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/wire"
)

// maskedRoom is by how many bytes masks may lengthen a row that is gathered with others,
// so that the output stays in the memory that it has.
const maskedRoom = 1 << 10

// whole reports whether the long row at hand must be there as a whole before it is dealt
// with, since values in it are masked.
func (t targetCore) whole(size int) bool {
	e := t.q.first()
	return e != nil && e.st != nil && e.st.masking != nil && !e.hidden && e.over == nil && size <= t.e.limits.MaskedRow
}

// maskedRows passes on a run of whole rows, of which the first is complete, with their
// masks. It leaves rows for the next step once there is enough to send.
func (t targetCore) maskedRows(e *entry, typ byte, in []byte, rows, bytes int64) (n int, err error) {
	if typ != 'D' {
		return 0, broken("the resource sent COPY data of a statement whose columns are masked")
	}
	if e.st.plan == nil {
		t.overrule(e, &postern.Refusal{Rule: e.st.adm.Decision.Rule, Reason: "it cannot be told which columns of the result are masked ones", Hint: "try again: the resource's tables may have changed a moment ago"})
		return 0, nil
	}
	out := t.down.GrowLarge()
	from, count := len(out), int64(0)
	var over *postern.Refusal
	for n+headerLen <= len(in) && in[n] == typ && over == nil {
		size := int(binary.BigEndian.Uint32(in[n+1:])) + 1
		if size > len(in)-n {
			break
		}
		if t.more = len(out) > 0 && len(out)+size+maskedRoom > wire.Large; t.more {
			break
		}
		masked, ok := e.st.plan.appendRow(out, in[n:n+size])
		if count >= rows || int64(len(masked)-from) > bytes {
			rows, bytes = room(e, count+1, int64(len(masked)-from))
		}
		switch {
		case !ok:
			return n, broken("the resource sent a row that does not fit its columns")
		case count >= rows || int64(len(masked)-from) > bytes:
			over = limitOf(count >= rows)
		default:
			out = masked
			n += size
			count++
		}
	}
	passed := count == 0
	if !passed {
		passed, err = t.reportMasked(e, out[from:], in[:n], count)
	}
	if !passed {
		out = out[:from]
	}
	t.down.Set(out)
	if over != nil {
		t.overrule(e, over)
	}
	return n, err
}

// reportMasked accounts for masked rows, and before that for what they were, where that is
// kept.
func (t targetCore) reportMasked(e *entry, masked, raw []byte, count int64) (bool, error) {
	if !e.flow.KeepsRaw() {
		return t.report(e, 'D', masked, count)
	}
	err := t.tellColumns(e)
	if err == nil {
		err = e.flow.RawRows(int(count), raw)
	}
	if err != nil {
		return false, postern.AsRefusal(err) // no record, no access
	}
	return t.report(e, 'D', masked, count)
}
