package db

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4/table"
	"golang.org/x/sys/unix"
)

// Badger maps its tables into memory, and around the place of each page fault
// the kernel reads as much as the disk's read-ahead says, 128 KiB or, on some
// disks, 8 MiB. That brings a small database into memory in no time. In a large
// one a look-up needs two pages, and Open the index at each table's end; so
// there the kernel is told not to read around.

// readAround is how large all tables together may be, in bytes, for that.
const readAround = 256 << 20

// adviseEvery is how often new tables are looked for. Those just written are
// in the page cache anyway.
const adviseEvery = time.Minute

// warmTables brings the tables' indexes into the page cache before Badger opens
// them, so that its page faults read nothing around. Errors are Badger's to
// find: without this it is only slower.
func warmTables(names []string) {
	next := make(chan string)
	var wg sync.WaitGroup
	// Four at a time: a disk answers several requests sooner than one after the other.
	for range 4 {
		wg.Go(func() {
			buf := make([]byte, 64<<10)
			for name := range next {
				_ = warmTable(name, buf)
			}
		})
	}
	for _, name := range names {
		next <- name
	}
	close(next)
	wg.Wait()
}

// lastBlock is what the last block of a table mostly takes at most.
const lastBlock = 8 << 10

// warmTable reads a table's index and its last block, which has the greatest
// key: that is what Badger looks at when it opens a table.
func warmTable(name string, buf []byte) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	// The rest of the table shall not come with it.
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	from, to, err := indexOf(f, info.Size())
	for at := max(0, from-lastBlock); err == nil && at < to; at += int64(len(buf)) {
		_, err = f.ReadAt(buf[:min(int64(len(buf)), to-at)], at)
	}
	return err
}

// indexOf returns where in a table of so many bytes the index is:
//
//	... | index | its length (4 B) | checksum | its length (4 B)
func indexOf(f io.ReaderAt, size int64) (from, to int64, err error) {
	from = size
	for range 2 { // over the checksum, then over the index
		var b [4]byte
		to = from - int64(len(b))
		if to < 0 {
			return 0, 0, ErrCorrupt
		}
		if _, err := f.ReadAt(b[:], to); err != nil {
			return 0, 0, err
		}
		if from = to - int64(binary.BigEndian.Uint32(b[:])); from < 0 {
			return 0, 0, ErrCorrupt
		}
	}
	return from, to, nil
}

// tables returns the names and the size of all tables in dir.
func tables(dir string) (names []string, size int64) {
	names, _ = filepath.Glob(filepath.Join(dir, "*"+sstExt))
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			size += info.Size()
		}
	}
	return names, size
}

// mappedTables is how many memtables the tables may be large before those that have not
// been needed for a while leave this process's memory.
const mappedTables = 4

// adviseTables tells the kernel that the tables of the instance in use, when they are large, are
// read at random, and lets go of what is mapped of them.
func (d *DB) adviseTables() {
	d.advised = time.Now()
	b := d.inUse()
	_, size := tables(b.dir)
	if size > d.opt.readAround {
		_ = b.advise(unix.MADV_RANDOM)
	}
	if size > mappedTables*d.opt.MemTable {
		b.dropPages()
	}
}

// dropPages takes the tables out of this process's memory. They stay in the page cache, from
// where they are mapped again when they are needed.
func (b *instance) dropPages() { _ = b.advise(unix.MADV_DONTNEED) }

// advise tells the kernel something of the tables. Badger does not tell where it has mapped them;
// the kernel does. Of an instance that stays open, which the caller sees to, no table that Badger
// lists is ever unmapped, so their addresses are theirs. After an error the kernel does as it does
// without advice.
func (b *instance) advise(how int) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // listing tables reads their indexes
	defer catchFault(&err)
	open := make(map[string]bool)
	for _, t := range b.kv.Tables() {
		open[table.IDToFilename(t.ID)] = true
	}
	dir, err := filepath.Abs(b.dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	// A line is: addresses, rights, offset, device, inode, path.
	for line := range bytes.Lines(maps) {
		where, name, _ := strings.Cut(string(bytes.TrimSpace(line)), "/")
		name = "/" + name
		if filepath.Dir(name) != dir || !open[filepath.Base(name)] {
			continue
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(where, "%x-%x", &from, &to); err == nil {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, uintptr(how))
		}
	}
	return nil
}
