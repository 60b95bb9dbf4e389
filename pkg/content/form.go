package content

import (
	"bytes"
	"fmt"

	"github.com/posterngate/postern/pkg/detect"
	"github.com/posterngate/postern/pkg/mask"
)

// form masks what a form sends: fields by name, and all by what is detected in them.
type form struct {
	rule  *Rule
	field []byte // name=value as it came
	name  []byte
	value []byte
	shown []byte
}

func (r *Rule) newForm() *form { return &form{rule: r} }

func (f *form) Append(dst, chunk []byte) ([]byte, error) {
	for {
		i := bytes.IndexByte(chunk, '&')
		piece := chunk
		if i >= 0 {
			piece = chunk[:i]
		}
		if len(f.field)+len(piece) > MaxField {
			return dst, fmt.Errorf("form: a field is longer than %d bytes: %w", MaxField, ErrLimit)
		}
		f.field = append(f.field, piece...)
		if i < 0 {
			return dst, nil
		}
		var err error
		if dst, err = f.show(dst); err != nil {
			return dst, err
		}
		dst = append(dst, '&')
		chunk = chunk[i+1:]
	}
}

func (f *form) Close(dst []byte) ([]byte, error) { return f.show(dst) }

// show appends the field that was read.
func (f *form) show(dst []byte) (_ []byte, err error) {
	defer func() { f.field = f.field[:0] }()
	name, value, has := bytes.Cut(f.field, []byte("="))
	if f.name, err = unescape(f.name[:0], name); err != nil {
		return dst, err
	}
	if f.value, err = unescape(f.value[:0], value); err != nil {
		return dst, err
	}
	if dst = f.part(dst, name, f.name, nil); !has {
		return dst, nil
	}
	w := f.rule.names[fold(string(f.name))]
	if w == nil && f.rule.set != nil && f.rule.set.NamesSecret(f.name) {
		w = f.rule.set.Writer(detect.Password)
	}
	return f.part(append(dst, '='), value, f.value, w), nil
}

// part appends a name or value: as it came, where nothing in it is masked.
func (f *form) part(dst, raw, text []byte, w *mask.Writer) []byte {
	masked := w != nil
	switch {
	case w != nil:
		f.shown = w.AppendMasked(f.shown[:0], text)
	case f.rule.set != nil:
		f.shown, masked = f.rule.set.AppendMasked(f.shown[:0], text)
	}
	if !masked {
		return append(dst, raw...)
	}
	for _, b := range f.shown {
		switch {
		case b == ' ':
			dst = append(dst, '+')
		case b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '_' || b == '.' || b == '*':
			dst = append(dst, b)
		default:
			const hex = "0123456789ABCDEF"
			dst = append(dst, '%', hex[b>>4], hex[b&15])
		}
	}
	return dst
}

// unescape appends what a part of a form means.
func unescape(dst, part []byte) ([]byte, error) {
	for i := 0; i < len(part); i++ {
		switch b := part[i]; {
		case b == '+':
			dst = append(dst, ' ')
		case b == '%':
			if i+2 >= len(part) || digit(part[i+1]) < 0 || digit(part[i+2]) < 0 {
				return dst, fmt.Errorf("form: an escape is none: %w", ErrForm)
			}
			dst = append(dst, byte(digit(part[i+1])<<4|digit(part[i+2])))
			i += 2
		case b < ' ' || b == ';':
			return dst, fmt.Errorf("form: it has a character that stands for nothing: %w", ErrForm)
		default:
			dst = append(dst, b)
		}
	}
	return dst, nil
}

// digit is the value of a hexadecimal digit, or negative.
func digit(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		return int(b|0x20-'a') + 10
	}
	return -1
}
