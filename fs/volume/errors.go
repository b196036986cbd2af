package volume

import (
	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/store"
)

// The errors of methods that are no syscall.Errno, to be told apart with
// errors.Is.
var (
	ErrFull     = store.ErrFull     // too little room on the disk
	ErrReadOnly = store.ErrReadOnly // the store is open for reading only
	ErrCorrupt  = store.ErrCorrupt  // stored bytes do not match their ID
	ErrMissing  = store.ErrNotFound // a block that a file refers to is not in the store

	ErrNameTaken = store.ErrNameTaken // a snapshot has that name
	ErrHeld      = store.ErrHeld      // the snapshot is not to be removed
	ErrName      = store.ErrConfig    // no snapshot can have that name
)

// Names of the layers below that appear in this package's methods.
type (
	Ino       = meta.Ino
	Time      = meta.Time
	TreeEntry = graph.Entry
)

// Root is the inode of the root directory.
const Root = meta.Root

// Latency summarizes how long something took; a Timer makes one.
type Latency = store.Latency

// A Timer notes how long something took each time.
type Timer = store.Timer

// MaxName is the longest name of a directory entry, in bytes.
const MaxName = meta.MaxName
