package main

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"
)

// A byteSize is a flag of bytes: 4096, 64KiB, 1MiB.
type byteSize int64

func (s *byteSize) String() string { return humanize.IBytes(uint64(*s)) }

func (s *byteSize) Type() string { return "size" }

func (s *byteSize) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("%q is no size such as 64KiB", text)
	}
	*s = byteSize(n)
	return nil
}
