package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/tools/verify/crash/history"
)

// A worker changes files in a directory of its own until the filesystem dies
// under it, and can judge what it finds there afterwards.
type worker interface {
	name() string
	// prepare makes the directory, once, durably.
	prepare() error
	// work returns the first error of a system call, or nil when ctx ends.
	work(ctx context.Context) error
	// judge compares the directory with the history since the last judge, and
	// then begins a new history from what is there.
	judge(round int) error
	// counts are the operations and the acknowledged fsyncs of the history.
	counts() (ops, fsyncs int)
	// at is a worker of the same directory whose history is that of an image
	// taken while this one worked.
	at(history.Cut) worker
	// evidence is the history, for the one who looks into a failure.
	evidence() any
}

// common is what all workers have.
type common struct {
	id     int
	kind   string
	dir    string
	round  int
	rng    *rand.Rand
	log    *ackLog
	tags   int
	fsyncs int
}

func newCommon(kind string, id int, mount string, seed uint64, log *ackLog) common {
	c := common{id: id, kind: kind, rng: rand.New(rand.NewPCG(seed, uint64(id))), log: log}
	c.dir = filepath.Join(mount, c.name())
	return c
}

func (c *common) name() string                { return fmt.Sprintf("%s-%d", c.kind, c.id) }
func (c *common) path(name string) string     { return filepath.Join(c.dir, name) }
func (c *common) chance(percent int) bool     { return c.rng.IntN(100) < percent }
func (c *common) between(least, most int) int { return least + c.rng.IntN(most-least+1) }

// tag is new in three cases of four; otherwise one used before, so that there is
// something to deduplicate.
func (c *common) tag() history.Tag {
	if c.tags > 0 && c.chance(25) {
		return history.NewTag(c.round, c.id, c.rng.IntN(c.tags))
	}
	c.tags++
	return history.NewTag(c.round, c.id, c.tags-1)
}

func (c *common) acknowledged(a ack) error {
	c.fsyncs++
	a.Round, a.Worker = c.round, c.name()
	return c.log.write(a)
}

// An ack is a line of the log that is kept outside of the filesystem: an fsync
// that returned, and what it promised.
type ack struct {
	Time   string `json:"time"`
	Round  int    `json:"round"`
	Worker string `json:"worker"`
	Op     int    `json:"op"` // so many operations of the round are promised, as far as they concern Path
	Path   string `json:"path"`
	Len    int    `json:"len"`
	Sum    string `json:"sum"` // CRC-64/ECMA of the content
}

type ackLog struct {
	mu struct {
		sync.Mutex
		w io.Writer
	}
}

func newAckLog(w io.Writer) *ackLog {
	l := &ackLog{}
	l.mu.w = w
	return l
}

func (l *ackLog) write(a ack) error {
	a.Time = time.Now().UTC().Format(time.RFC3339Nano)
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	l.mu.Lock()
	// One write call a line, so that lines of two workers do not mix.
	defer l.mu.Unlock()
	_, err = l.mu.w.Write(append(line, '\n'))
	return err
}

// readState reads a whole directory.
func readState(dir string) (history.State, error) {
	s := history.State{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		rel := strings.TrimPrefix(name, dir+"/")
		if d.IsDir() {
			s[rel+"/"] = []byte{}
			return nil
		}
		s[rel], err = os.ReadFile(name)
		return err
	})
	return s, err
}

// readBack fails unless a file that is still being worked on reads as its
// worker wrote it.
func readBack(name string, want []byte) error {
	got, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if diff := (history.State{"": want}).Diff(history.State{"": got}); diff != "" {
		return &wrongBytes{fmt.Sprintf("%s reads back wrong before any crash%s", name, diff)}
	}
	return nil
}

// wrongBytes is an error of the filesystem that no crash excuses.
type wrongBytes struct{ what string }

func (e *wrongBytes) Error() string { return e.what }

func fsyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeSynced makes a file with a content, durably.
func writeSynced(name string, content []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, werr := f.Write(content)
	return errors.Join(werr, f.Sync(), f.Close(), fsyncDir(filepath.Dir(name)))
}

// makeDirs makes directories durably.
func makeDirs(dirs ...string) error {
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		if err := errors.Join(fsyncDir(d), fsyncDir(filepath.Dir(d))); err != nil {
			return err
		}
	}
	return nil
}

// clock is monotonic and the same for all workers; never 0.
func clock() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // the clock is always there on Linux
	}
	return ts.Nano()
}
