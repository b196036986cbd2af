package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/fs"
	"github.com/quarxtor/quarxfs/fs/volume"
)

// snapshotDirs are the values of --snapshot-dir, in the order of their numbers.
var snapshotDirs = []string{volume.SnapshotsHidden: "hidden", volume.SnapshotsVisible: "visible", volume.SnapshotsOfRoot: "root-only"}

// transports are the values of --transport, in the order of their numbers.
var transports = []string{fs.Auto: fs.Auto.String(), fs.Ring: fs.Ring.String(), fs.Device: fs.Device.String()}

// A namedFlag is a flag of a number by its name.
type namedFlag[T ~int] struct {
	to    *T
	names []string // by number
	kind  string   // what help calls the value
}

// namedVar adds a flag of a number by its name; its value so far is the default.
func namedVar[T ~int](f *pflag.FlagSet, to *T, names []string, kind, name, usage string) {
	f.Var(&namedFlag[T]{to, names, kind}, name, usage)
}

func (f *namedFlag[T]) String() string {
	if f.to == nil {
		return ""
	}
	return f.names[*f.to]
}

func (f *namedFlag[T]) choices() []string { return f.names }

func (f *namedFlag[T]) Type() string { return f.kind }

func (f *namedFlag[T]) Set(s string) error {
	n := slices.Index(f.names, s)
	if n < 0 {
		return fmt.Errorf("choose one of %s", strings.Join(f.names, ", "))
	}
	*f.to = T(n)
	return nil
}
