package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// A progressLine is a line on a terminal that is written over again and again;
// where standard error is none, it shows nothing.
type progressLine struct {
	w     io.Writer // nil: shows nothing
	shown time.Time
	dirty bool
}

func newProgress(stderr io.Writer, quiet bool) *progressLine {
	f, ok := stderr.(*os.File)
	if quiet || !ok || !term.IsTerminal(int(f.Fd())) {
		return &progressLine{}
	}
	return &progressLine{w: stderr}
}

func (p *progressLine) show(format string, args ...any) {
	if p.w == nil || time.Since(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown, p.dirty = time.Now(), true
	fmt.Fprintf(p.w, "\r\x1b[K"+format, args...)
}

// clear removes the line, so that output can follow.
func (p *progressLine) clear() {
	if p.dirty {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
