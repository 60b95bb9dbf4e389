package content

import (
	"github.com/posterngate/postern/pkg/mask"
)

// hidden stands for what a mask that shows parts cannot be kept in.
const hidden = "[hidden]"

// appendQuoted appends text as the inside of a JSON string. Bytes that are no ASCII stay.
func appendQuoted(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	from := 0
	for i, b := range text {
		if b >= ' ' && b != '"' && b != '\\' {
			continue
		}
		dst = append(dst, text[from:i]...)
		from = i + 1
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		}
	}
	return append(dst, text[from:]...)
}

// shows reports whether a mask shows something of the value, so that it is needed.
func shows(w *mask.Writer) bool { return !w.Null() && !w.Constant() }

// appendMask appends, as JSON, what stands for a value. Its text is needed only where the
// mask shows something; nil is a value that has none, such as an object.
func (j *JSON) appendMask(dst []byte, w *mask.Writer, text []byte) []byte {
	if w.Null() {
		return append(dst, "null"...)
	}
	dst = append(dst, '"')
	if shows(w) && text == nil {
		dst = append(dst, hidden...)
	} else {
		j.shown = w.AppendMasked(j.shown[:0], text)
		dst = appendQuoted(dst, j.shown)
	}
	return append(dst, '"')
}
