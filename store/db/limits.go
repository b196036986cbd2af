package db

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// spareFiles is how many files an instance opens besides those in its directory.
const spareFiles = 12

// limits reports what this process may not do, and Badger needs: to open as many files as an
// instance in dir has, and to map and to make one as large as a memtable's log. Badger itself takes
// that for damage, or ends the process.
func (o Options) limits(dir string) error {
	size := 2 * o.MemTable // as large as Badger makes a log
	var most unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_FSIZE, &most) == nil && most.Cur < uint64(size) && !o.ReadOnly {
		return fmt.Errorf("files may have %d bytes here, and %d are needed: %w: raise that limit (ulimit -f)", most.Cur, size, unix.EFBIG)
	}
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("map %d bytes: %w: raise the limit of address space (ulimit -v)", size, err)
	}
	if err := unix.Munmap(b); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var open []*os.File
	defer func() {
		for _, f := range open {
			_ = f.Close() // only its number was wanted
		}
	}()
	for range len(entries) + spareFiles {
		f, err := os.Open(dir)
		if err != nil {
			return fmt.Errorf("open the %d files of the database: %w: raise the limit of open files (ulimit -n)", len(entries)+spareFiles, err)
		}
		open = append(open, f)
	}
	return nil
}
