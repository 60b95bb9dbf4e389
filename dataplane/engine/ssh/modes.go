package ssh

import (
	"encoding/binary"
	"errors"
	"strconv"

	"golang.org/x/crypto/ssh"
)

// maxModes is how many terminal modes a client may send (RFC 4254, 8, names 58).
const maxModes = 256

// decodeModes reads the encoded modes of a terminal.
func decodeModes(encoded string) (ssh.TerminalModes, error) {
	modes := ssh.TerminalModes{}
	p := []byte(encoded)
	for len(p) > 0 && p[0] != 0 && p[0] < 160 {
		if len(p) < 5 || len(modes) == maxModes {
			return nil, errors.New("the modes of the terminal cannot be read")
		}
		modes[p[0]] = binary.BigEndian.Uint32(p[1:5])
		p = p[5:]
	}
	return modes, nil
}

// sizeOf is a terminal's size as recordings have it: columns, x, rows.
func sizeOf(columns, rows uint32) []byte {
	b := strconv.AppendUint(nil, uint64(columns), 10)
	return strconv.AppendUint(append(b, 'x'), uint64(rows), 10)
}
