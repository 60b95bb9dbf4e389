package approve

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// Plain shows what cannot be seen in a text, so that it cannot look like another one.
func Plain(s string) string {
	var b strings.Builder
	for _, c := range s {
		if c == '\n' || c == '\t' || unicode.IsPrint(c) {
			b.WriteRune(c)
			continue
		}
		q := strconv.QuoteRuneToASCII(c)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

// ParameterText is a parameter by its number, from 0.
func ParameterText(i int, p *typesv1.Parameter) string {
	if p.Value == nil {
		return fmt.Sprintf("$%d = NULL", i+1)
	}
	return fmt.Sprintf("$%d = %q", i+1, p.GetValue())
}

// StateText is the word for where a hold stands.
func StateText(h *typesv1.Hold) string { return stateWord(h) }
