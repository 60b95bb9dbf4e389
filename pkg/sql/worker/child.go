package worker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/pganalyze/pg_query_go/v6/parser"

	"github.com/posterngate/postern/pkg/sql/postgres/pgtree"
)

// marker is the one variable in a child's environment; its value is its memory limit.
const marker = "POSTERN_PARSE_WORKER"

// Main must be called first in every main that links this package. In a child it works
// until its standard input ends and never returns; otherwise it does nothing.
func Main() {
	v, ok := os.LookupEnv(marker)
	if !ok {
		return
	}
	memory, err := strconv.ParseInt(v, 10, 64)
	if err == nil {
		err = confine(memory + detector)
	}
	if err == nil {
		debug.SetMemoryLimit(memory / 2)
		runtime.GOMAXPROCS(1)
		err = serve(os.Stdin, os.Stdout)
	}
	if err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// serve answers requests until r ends.
func serve(r io.Reader, w io.Writer) error {
	var in, out []byte
	if err := writeFrame(w, &out, opReady, ""); err != nil {
		return err
	}
	for {
		op, body, err := readFrame(r, &in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		kind, answer := handle(op, body)
		if err := writeFrame(w, &out, kind, answer); err != nil {
			return err
		}
		if cap(in) > 1<<20 || cap(out) > 8<<20 {
			in, out = nil, nil
		}
	}
}

func handle(op byte, body []byte) (byte, []byte) {
	switch op {
	case opParse:
		tree, err := parser.ParseToProtobuf(string(body))
		if err != nil {
			return failure(err)
		}
		return opOK, tree
	case opDeparse:
		text, err := deparse(body)
		if err != nil {
			return opFailed, []byte(err.Error())
		}
		return opOK, []byte(text)
	}
	return opFailed, []byte("unknown request")
}

func failure(err error) (byte, []byte) {
	var e *parser.Error
	// What the parser runs out of says nothing of the text.
	if !errors.As(err, &e) || strings.HasPrefix(e.Message, "out of memory") || strings.HasPrefix(e.Message, "stack depth limit") {
		return opFailed, []byte(err.Error())
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(max(e.Cursorpos, 0)))
	return opSyntax, append(b, e.Message...)
}

// deparse writes a tree as text and makes sure that the text means the tree. What the
// library writes too short is written with all its brackets.
func deparse(tree []byte) (string, error) {
	text, err := faithful(tree, parser.DeparseFromProtobuf)
	if err == nil {
		return text, nil
	}
	if text, again := faithful(tree, bracketed); again == nil {
		return text, nil
	}
	return "", err
}

// faithful is what write makes of a tree, if it is that very tree when it is parsed again.
func faithful(tree []byte, write func(tree []byte) (string, error)) (string, error) {
	text, err := write(tree)
	if err != nil {
		return "", fmt.Errorf("write: %w", err)
	}
	again, err := parser.ParseToProtobuf(text)
	if err != nil {
		return "", fmt.Errorf("read back: %w", err)
	}
	same, err := pgtree.Same(tree, again)
	if err != nil {
		return "", fmt.Errorf("compare: %w", err)
	}
	if !same {
		return "", errors.New("what was written reads differently")
	}
	return text, nil
}
