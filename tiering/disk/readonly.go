package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// ReadOnly returns the operating system's file operations but for those that change something,
// whose error is EROFS. Open opens files for reading.
func ReadOnly() FS { return readOnlyFS{} }

type readOnlyFS struct{ osFS }

func (readOnlyFS) Open(path string) (File, error) { return openFile(path, os.O_RDONLY) }

func (readOnlyFS) MkdirAll(dir string) error     { return pathError("mkdir", dir, unix.EROFS) }
func (readOnlyFS) Create(p string) (File, error) { return nil, pathError("create", p, unix.EROFS) }
func (readOnlyFS) Rename(from, _ string) error   { return pathError("rename", from, unix.EROFS) }
func (readOnlyFS) Remove(path string) error      { return pathError("remove", path, unix.EROFS) }
