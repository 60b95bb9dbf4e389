package sql

// A SyntaxError is text that the dialect's grammar does not know. It is the fault of
// whoever wrote the text, and is shown to them.
type SyntaxError struct {
	Message  string // as the target itself would say it, without an "ERROR:" in front
	Position int    // in characters, from 1; 0 where it is unknown
}

func (e *SyntaxError) Error() string { return e.Message }
