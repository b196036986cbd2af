package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// diskReads returns the bytes that this process has had read from disks.
func diskReads() int64 { return procField("/proc/self/io", "read_bytes:") }

// cpuTime returns the CPU time that this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// warm reads all files in a directory, so that they are in the page cache.
func warm(dir string) error {
	for _, name := range filesIn(dir) {
		f, err := os.Open(name)
		if err != nil {
			continue // gone meanwhile
		}
		_, err = io.Copy(io.Discard, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// filesIn returns the names of all files below dir, but for those that go meanwhile.
func filesIn(dir string) (names []string) {
	_ = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			names = append(names, name)
		}
		return nil
	})
	return names
}

// procField reads a number of a file with a name and a number in each line; 0
// if it is not there.
func procField(file, name string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		var n int64
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			_, _ = fmt.Sscan(string(rest), &n)
			return n
		}
	}
	return 0
}

type memory struct{ heap, anon, file int64 } // bytes

func readMemory() memory {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{
		heap: int64(m.HeapAlloc),
		anon: procField("/proc/self/status", "RssAnon:") << 10,
		file: procField("/proc/self/status", "RssFile:") << 10,
	}
}

// dropCaches empties the kernel's caches; only root can.
func dropCaches() bool {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0) == nil
}
