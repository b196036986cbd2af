package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/tools/serve"
)

// A liar is a directory that does something to itself at the nth mount.
type liar struct {
	dir    string
	nth    int
	do     func(dir string) error
	mounts int
}

func (l *liar) Start(context.Context, string) error {
	l.mounts++
	if l.do == nil || l.mounts != l.nth {
		return nil
	}
	return l.do(l.dir)
}
func (*liar) Stop(context.Context, string) error { return nil }
func (*liar) Reset(context.Context) error        { return nil }
func (*liar) PID(context.Context) (int, error)   { return 0, nil }

func newDriver(t *testing.T, l *liar) (*driver, *bytes.Buffer) {
	t.Helper()
	l.dir = t.TempDir()
	log := &bytes.Buffer{}
	return &driver{
		place:   &serve.Target{Name: "liar", Dir: l.dir, Server: l},
		workers: newWorkers(l.dir, 1, newAckLog(log)),
		// Of this seed the first rounds are long (79, 400 and 361 ms), so that on a
		// busy machine too there is something to lie about.
		rng:    rand.New(rand.NewPCG(8, 0)),
		rounds: 3, longest: 400 * time.Millisecond, out: io.Discard,
	}, log
}

func TestHonestDirectoryPasses(t *testing.T) {
	d, log := newDriver(t, &liar{})
	if err := d.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d.totals.fsyncs == 0 || d.totals.fsyncs != strings.Count(log.String(), "\n") {
		t.Errorf("%d fsyncs acknowledged, %d logged", d.totals.fsyncs, strings.Count(log.String(), "\n"))
	}
}

// files calls do with the files of a worker until one call has done something.
func files(worker string, do func(name string, content []byte) (bool, error)) func(string) error {
	return func(dir string) error {
		done := false
		err := filepath.WalkDir(filepath.Join(dir, worker), func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || done {
				return err
			}
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			done, err = do(name, content)
			return err
		})
		if err == nil && !done {
			err = errors.New("found no file to spoil")
		}
		return err
	}
}

func flip(name string, content []byte) (bool, error) {
	if len(content) == 0 {
		return false, nil
	}
	content[len(content)/2] ^= 0x20
	return true, os.WriteFile(name, content, 0o644)
}

func grow(name string, content []byte) (bool, error) {
	return true, os.WriteFile(name, append(content, 7), 0o644)
}

func TestLiesAreFound(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(string) error
		want string
	}{
		"byte of an ordered file": {files("ordered-1", flip), "ordered-1: no state between"},
		"ordered file grown":      {files("ordered-2", grow), "ordered-2: no state between"},
		"byte of a paged file":    {files("paged-3", flip), "paged-3: "},
		"paged file grown":        {files("paged-4", grow), "paged-4: "},
		// Made before the first round, and never removed: it is promised.
		"paged directory lost": {func(dir string) error { return os.RemoveAll(filepath.Join(dir, "paged-4/d0")) }, "paged-4: the names"},
		"half a save":          {files("saver-5", grow), "saver-5: config"},
		"byte of the database": {files("database-6", flip), "database-6: the database"},
		"a mount that refuses": {func(string) error { return errors.New("I will not") }, "the mount refuses"},
		"stray file":           {func(dir string) error { return os.WriteFile(filepath.Join(dir, "ordered-1/x"), nil, 0o644) }, "ordered-1: no state between"},
		"everything as at the beginning": {func(dir string) error {
			if err := os.RemoveAll(filepath.Join(dir, "ordered-1")); err != nil {
				return err
			}
			return errors.Join(os.MkdirAll(filepath.Join(dir, "ordered-1/d0"), 0o755), os.Mkdir(filepath.Join(dir, "ordered-1/d1"), 0o755))
		}, "ordered-1: no state between"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, _ := newDriver(t, &liar{nth: 3, do: tc.do})
			err := d.run(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want it to say %q", err, tc.want)
			}
			if err := d.keepEvidence(d.place.Dir); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFailingCheckFails(t *testing.T) {
	d, _ := newDriver(t, &liar{})
	d.check = "echo found damage; exit 1"
	if err := d.run(t.Context()); err == nil || !strings.Contains(err.Error(), "found damage") {
		t.Errorf("got %v", err)
	}
}

// An error before any crash is the filesystem's, and so are wrong bytes at any
// time.
func TestErrorsBeforeTheCrashFail(t *testing.T) {
	d, _ := newDriver(t, &liar{})
	d.longest = 10 * time.Second
	go func() {
		// The worker makes the directory when it is ready, which may be late on a busy machine.
		for t.Context().Err() == nil && os.Rename(filepath.Join(d.place.Dir, "saver-5"), filepath.Join(d.place.Dir, "gone")) != nil {
			time.Sleep(time.Millisecond)
		}
	}()
	d.rng = rand.New(rand.NewPCG(3, 0)) // a seed whose first round is long enough
	if err := d.run(t.Context()); err == nil || !strings.Contains(err.Error(), "saver-5") {
		t.Errorf("got %v", err)
	}
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	var wrong *wrongBytes
	if err := readBack(name, []byte("abd")); !errors.As(err, &wrong) {
		t.Errorf("got %v", err)
	}
}

func TestCommandOnAPlainDirectory(t *testing.T) {
	work := t.TempDir()
	cmd := newCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--server", "plain", "--work", work, "--rounds", "2", "--longest", "50ms", "--seed", "5"})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "seed 5") || !strings.Contains(out.String(), "kept: 2 crashes") {
		t.Error(out.String())
	}
	if left, err := os.ReadDir(work); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
