package run

import (
	"errors"
	"fmt"
)

// Failures are what went wrong in a pass over many things, which goes on where one fails.
// Of many the first few are told.
type Failures struct {
	first []error
	count int
}

// told is how many of them an error tells.
const told = 3

// Add counts err, unless it is nil.
func (f *Failures) Add(err error) {
	if err == nil {
		return
	}
	if f.count++; f.count <= told {
		f.first = append(f.first, err)
	}
}

// Err tells of what went wrong; nil where nothing did.
func (f *Failures) Err() error {
	err := errors.Join(f.first...)
	if more := f.count - len(f.first); more > 0 {
		err = fmt.Errorf("%w\nand %d more", err, more)
	}
	return err
}
