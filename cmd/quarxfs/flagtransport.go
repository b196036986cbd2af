package main

import (
	"fmt"
	"strings"

	"github.com/quarxtor/quarxfs/fs"
)

// A transportFlag is a flag that says how the kernel's requests come.
type transportFlag struct{ to *fs.Transport }

func (f *transportFlag) String() string {
	if f.to == nil {
		return ""
	}
	return f.to.String()
}

func (f *transportFlag) choices() []string {
	return []string{fs.Auto.String(), fs.Ring.String(), fs.Device.String()}
}

func (f *transportFlag) Type() string { return "how" }

func (f *transportFlag) Set(s string) error {
	t, err := fs.ParseTransport(s)
	if err != nil {
		return fmt.Errorf("choose one of %s", strings.Join(f.choices(), ", "))
	}
	*f.to = t
	return nil
}
