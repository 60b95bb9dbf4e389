package main

import (
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// period is what --since and --until say.
type period struct{ from, to string }

func (p *period) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.from, "since", "", "a duration before now, such as 2h or 7d, or an RFC 3339 time")
	f.StringVar(&p.to, "until", "", "a duration before now, such as 2h or 7d, or an RFC 3339 time")
}

// read is nil for an end that is open. A period in which nothing can have been is a
// mistake: that nothing is found would be taken for an answer.
func (p *period) read() (from, to *timestamppb.Timestamp, err error) {
	if from, err = since(p.from); err == nil {
		to, err = instant(p.to)
	}
	if err == nil && from != nil && to != nil && !from.AsTime().Before(to.AsTime()) {
		err = usage("--until %s is not after --since %s", p.to, p.from)
	}
	return from, to, err
}

// since reads an instant that has been; nil where there is none.
func since(s string) (*timestamppb.Timestamp, error) {
	t, err := instant(s)
	if err == nil && t != nil && t.AsTime().After(time.Now()) {
		return nil, usage("%s lies ahead", s)
	}
	return t, err
}

// instant reads a duration before now, or an RFC 3339 time; nil where there is neither.
func instant(s string) (*timestamppb.Timestamp, error) {
	if s == "" {
		return nil, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return timestamppb.New(time.Now().Add(-d)), nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if d, err := time.ParseDuration(days + "h"); err == nil && d >= 0 && d <= math.MaxInt64/24 {
			return timestamppb.New(time.Now().Add(-24 * d)), nil
		}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return nil, usage("%q is neither a duration such as 2h or 7d nor an RFC 3339 time", s)
	}
	return timestamppb.New(t), nil
}
