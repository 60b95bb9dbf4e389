package engine

import "math"

// A Flow is the way back of one admitted execution. It is reset by Admit, owned by the
// caller, and used by one goroutine at a time. Done ends it, exactly once.
type Flow struct {
	sink FlowSink
	// rows and bytes are what has been set aside for what is yet to be passed on.
	rows, bytes int64
	hold        string
}

// A FlowSink takes what a Flow reports; the gate implements it. The slices that it is
// given are valid during the call alone.
type FlowSink interface {
	// Room sets rows and bytes aside, and says how many: less than was asked for means
	// that the budget has no more. It may wait for the budget's keeper.
	Room(rows, bytes int64) (int64, int64)
	// Columns is called before the first row, and may refuse the result.
	Columns(cols []ResultColumn) error
	// Rows is told of n whole rows that were passed on, encoded as they are in span.
	Rows(n int, span []byte) error
	// Chunk is told of data without columns: COPY, bodies, terminals.
	Chunk(d Direction, p []byte) error
	// Output is told of what a command or terminal said, which is kept.
	Output(s Stream, p []byte) error
	// KeepsRaw, RawRows and RawOutput are those of Flow.
	KeepsRaw() bool
	RawRows(n int, span []byte) error
	RawOutput(s Stream, p []byte) error
	// Done records how the execution ended.
	Done(o Outcome) error
}

// ResultColumn is one column of a result, as the resource described it.
type ResultColumn struct {
	Name   string
	Type   uint32 // the protocol's own type id
	Binary bool
	Masked bool
}

// Direction says which way data goes.
type Direction uint8

// The directions.
const (
	ToClient Direction = iota
	ToTarget
)

// Stream says what part of an output something is.
type Stream uint8

// The streams.
const (
	Stdout Stream = iota
	Stderr
	Resize // not data: the terminal's new size, as "columns x rows" without spaces
	Head   // not data: the headers of an answer, one a line
	Asked  // what the client sent with its request, or told a shell that has no terminal
	Body   // the body of an answer, as the client got it
)

// Said reports whether it is something that the client was told, and so counts.
func (s Stream) Said() bool { return s == Stdout || s == Stderr || s == Body }

func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	case Resize:
		return "resize"
	case Head:
		return "head"
	case Asked:
		return "asked"
	case Body:
		return "body"
	}
	return "unknown"
}

// Outcome says how an execution ended.
type Outcome struct {
	Tag      string // the command tag, such as "SELECT 3"
	Affected int64  // rows changed, or -1 where the protocol does not say
	Code     string // the protocol's error code; empty where all went well
	Message  string // the error as the client saw it
}

// Start is for the gate: it sets the flow up for one execution, with what it may pass on
// before it asks for room. Negative numbers mean that it never has to.
func (f *Flow) Start(s FlowSink, rows, bytes int64) {
	if rows < 0 {
		rows = math.MaxInt64
	}
	if bytes < 0 {
		bytes = math.MaxInt64
	}
	*f = Flow{sink: s, rows: rows, bytes: bytes}
}

// Bounded reports whether Room may have less than is asked for. It is for before anything is
// reported.
func (f *Flow) Bounded() bool { return f.rows < math.MaxInt64 || f.bytes < math.MaxInt64 }

// LetBy is for the gate: it says which hold's yes let the execution through.
func (f *Flow) LetBy(hold string) { f.hold = hold }

// Hold is the hold whose yes let the execution through; empty where nobody was asked.
func (f *Flow) Hold() string { return f.hold }

// Admitted reports whether the flow is of an execution that was let through and is
// not done.
func (f *Flow) Admitted() bool { return f.sink != nil }

// Room asks for room for that many rows and bytes in all that are yet to be reported, and
// says how many may be passed on: more, or less where the budget has no more. The engine
// passes no more than that, and then ends the result with the protocol's limit error.
func (f *Flow) Room(rows, bytes int64) (int64, int64) {
	if rows > f.rows || bytes > f.bytes {
		r, b := f.sink.Room(max(rows-f.rows, 0), max(bytes-f.bytes, 0))
		f.rows += r
		f.bytes += b
	}
	return f.rows, f.bytes
}

// Columns reports the columns of a result before its first row.
func (f *Flow) Columns(cols []ResultColumn) error { return f.sink.Columns(cols) }

// Rows reports n whole rows, encoded as they are in span.
func (f *Flow) Rows(n int, span []byte) error {
	f.rows -= int64(n)
	f.bytes -= int64(len(span))
	return f.sink.Rows(n, span)
}

// Chunk reports data without columns.
func (f *Flow) Chunk(d Direction, p []byte) error {
	if d == ToClient {
		f.bytes -= int64(len(p))
	}
	return f.sink.Chunk(d, p)
}

// Output reports what a command or terminal said.
func (f *Flow) Output(s Stream, p []byte) error {
	if s.Said() {
		f.bytes -= int64(len(p))
	}
	return f.sink.Output(s, p)
}

// KeepsRaw reports whether the task wants what masks hide to be kept too. Only engines that
// mask what they pass on ask, and only where they do.
func (f *Flow) KeepsRaw() bool { return f.sink.KeepsRaw() }

// RawRows reports n whole rows as they were before their masks, where KeepsRaw.
func (f *Flow) RawRows(n int, span []byte) error { return f.sink.RawRows(n, span) }

// RawOutput reports what was said as it was before its masks, where KeepsRaw; it counts
// against no limit.
func (f *Flow) RawOutput(s Stream, p []byte) error { return f.sink.RawOutput(s, p) }

// Done ends the flow. An error means that the outcome could not be recorded, and the
// session must end.
func (f *Flow) Done(o Outcome) error {
	s := f.sink
	f.sink = nil
	return s.Done(o)
}
