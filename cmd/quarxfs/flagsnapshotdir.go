package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/quarxtor/quarxfs/fs/volume"
)

// snapshotDirs are the values of --snapshot-dir, in the order of their numbers.
var snapshotDirs = []string{volume.SnapshotsHidden: "hidden", volume.SnapshotsVisible: "visible", volume.SnapshotsOfRoot: "root-only"}

// A snapshotDirFlag is a flag that says who sees .snapshots.
type snapshotDirFlag struct{ to *volume.SnapshotsShown }

func (f *snapshotDirFlag) String() string {
	if f.to == nil {
		return ""
	}
	return snapshotDirs[*f.to]
}

func (f *snapshotDirFlag) choices() []string { return snapshotDirs }

func (f *snapshotDirFlag) Type() string { return "who" }

func (f *snapshotDirFlag) Set(s string) error {
	n := slices.Index(snapshotDirs, s)
	if n < 0 {
		return fmt.Errorf("choose one of %s", strings.Join(snapshotDirs, ", "))
	}
	*f.to = volume.SnapshotsShown(n)
	return nil
}
