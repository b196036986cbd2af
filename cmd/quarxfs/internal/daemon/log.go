package daemon

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	LogName = "quarxfs.log"
	logMost = 4 << 20 // bytes, and as much again in quarxfs.log.1
)

// A logFile writes to a terminal or pipe until it is told a file: then that is
// kept to a bounded size. Standard error can follow it, so that a crash leaves its
// trace there.
type logFile struct {
	first io.Writer
	most  int64
	mu    struct {
		sync.Mutex
		path     string
		f        *os.File
		size     int64
		early    []byte // what was written before there was a file, which begins with it
		follower int    // file descriptor that is to follow the file; -1: none
	}
}

func newLog(first io.Writer, most int64) *logFile {
	l := &logFile{first: first, most: most}
	l.mu.follower = -1
	return l
}

// moveTo makes the log go to the file at path from now on.
func (l *logFile) moveTo(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.path = path
	if err := l.open(); err != nil {
		return err
	}
	n, err := l.mu.f.Write(l.mu.early)
	l.mu.size += int64(n)
	l.mu.early = nil
	return err
}

// earlyMost bounds what is kept for a file that may never come, in bytes.
const earlyMost = 64 << 10

// follow makes a file descriptor lead to the log, whichever file that is.
func (l *logFile) follow(fd int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.follower = fd
	return unix.Dup3(int(l.mu.f.Fd()), fd, 0)
}

// open opens the file. l.mu is held.
func (l *logFile) open() error {
	f, err := os.OpenFile(l.mu.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && l.mu.follower >= 0 {
		err = unix.Dup3(int(f.Fd()), l.mu.follower, 0)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("log to %s: %w", l.mu.path, err)
	}
	// Only now that the new one is open: a failure leaves the old log in use.
	if l.mu.f != nil {
		l.mu.f.Close()
	}
	l.mu.f, l.mu.size = f, st.Size()
	return nil
}

// Write appends a line. A failed rotation is tried again at the next line.
func (l *logFile) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.f == nil {
		if len(l.mu.early)+len(line) <= earlyMost {
			l.mu.early = append(l.mu.early, line...)
		}
		// Until the store is open there is no file that would be its log.
		return l.first.Write(line)
	}
	if l.mu.size+int64(len(line)) > l.most && l.mu.size > 0 {
		// Where it fails the old file grows beyond its bound, which is better than no log.
		if err := os.Rename(l.mu.path, l.mu.path+".1"); err == nil {
			if err := l.open(); err != nil {
				return 0, err
			}
		}
	}
	n, err := l.mu.f.Write(line)
	l.mu.size += int64(n)
	return n, err
}
