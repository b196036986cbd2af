package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/tools/verify/crash/history"
)

// newMaintenance returns workers that do what else is done to a store in use: blocks
// change tiers, snapshots come and go, programs look for holes.
func newMaintenance(bin, mount, store string, seed uint64, log *ackLog) []worker {
	quarxfs := program{bin, mount}
	return []worker{
		&mover{common: newCommon("mover", 7, mount, seed, log), quarxfs: quarxfs, cold: filepath.Join(filepath.Dir(store), "cold")},
		&snapshots{common: newCommon("snapshots", 8, mount, seed, log), quarxfs: quarxfs},
		&seeker{common: newCommon("seeker", 9, mount, seed, log), mount: mount},
	}
}

// A program is quarxfs, whose commands are given a mount.
type program struct{ bin, mount string }

func (p program) run(ctx context.Context, command, verb string, args ...string) error {
	args = append([]string{command, verb, p.mount}, args...)
	cmd := exec.CommandContext(ctx, p.bin, args...)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", p.bin, args, err, out)
	}
	return nil
}

// A mover moves the blocks of the other workers' files to a cold tier beside the
// store, and back.
type mover struct {
	common
	quarxfs program
	cold    string
	moves   int
}

func (w *mover) prepare() error {
	return w.quarxfs.run(context.Background(), "tier", "add", "cold", w.cold)
}

func (w *mover) work(ctx context.Context) (err error) {
	for err == nil && ctx.Err() == nil {
		dirs := []string{"ordered-1", "ordered-2", "paged-3", "paged-4", "saver-5", "database-6"}
		// Any number of them in any order, so that a move meets each kind of load.
		w.rng.Shuffle(len(dirs), func(i, j int) { dirs[i], dirs[j] = dirs[j], dirs[i] })
		dirs = dirs[:w.between(1, len(dirs))]
		switch n := w.rng.IntN(10); {
		case n < 5:
			err = w.quarxfs.run(ctx, "tier", "demote", dirs...)
		case n < 8:
			err = w.quarxfs.run(ctx, "tier", "promote", dirs...)
		// A drain takes back all that there is, from files that may be moved again meanwhile.
		default:
			err = w.quarxfs.run(ctx, "tier", "drain", "cold")
		}
		w.moves++
	}
	return err
}

func (w *mover) judge(int) error       { w.moves = 0; return nil }
func (w *mover) counts() (int, int)    { return w.moves, 0 }
func (w *mover) at(history.Cut) worker { c := *w; return &c }
func (w *mover) evidence() any         { return map[string]any{"moves": w.moves} }

// snapshots makes and removes snapshots of all workers' files. One that was
// made stays as it was until it is removed.
type snapshots struct {
	common
	quarxfs program
	h       []snapshot
	ops     int
}

type snapshot struct {
	Name     string
	Sum      string // of all that is in it; "": not yet known
	Made     int64  // when it was acknowledged; 0: it was not
	Removing int64  // when its removal began; 0: it did not
}

// mostSnapshots are kept from round to round.
const mostSnapshots = 3

func (w *snapshots) pathOf(name string) string {
	return filepath.Join(filepath.Dir(w.dir), ".snapshots", name)
}

func (w *snapshots) prepare() error { return nil }

func (w *snapshots) work(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := w.makeOne(ctx); err != nil {
			return err
		}
		w.ops++
		var kept []*snapshot
		for i := range w.h {
			if w.h[i].Removing == 0 {
				kept = append(kept, &w.h[i])
			}
		}
		if len(kept) <= mostSnapshots {
			continue
		}
		// Any and not the oldest: the ones between share most with their neighbours.
		old := kept[w.rng.IntN(len(kept))]
		// Before the call: once it may have begun, the snapshot may be gone.
		old.Removing = clock()
		if err := w.quarxfs.run(ctx, "snapshot", "rm", old.Name); err != nil {
			return err
		}
		w.ops++
	}
	return nil
}

func (w *snapshots) makeOne(ctx context.Context) error {
	// Known before it is made. Without Made nobody is promised that it is there.
	w.h = append(w.h, snapshot{Name: fmt.Sprintf("round-%d-%d", w.round, len(w.h))})
	s := &w.h[len(w.h)-1]
	if err := w.quarxfs.run(ctx, "snapshot", "create", s.Name); err != nil {
		return err
	}
	s.Made = clock()
	// Read at once, while all others work: this is what it has to be forever.
	sum, err := w.sum(s.Name)
	s.Sum = sum
	return err
}

// sum reads all of a snapshot.
func (w *snapshots) sum(name string) (string, error) {
	state, err := readState(w.pathOf(name))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, file := range slices.Sorted(maps.Keys(state)) {
		fmt.Fprintf(h, "%q %d\n", file, len(state[file]))
		_, _ = h.Write(state[file]) // a hash takes all
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

func (w *snapshots) judge(round int) error {
	entries, err := os.ReadDir(w.pathOf(""))
	if err != nil {
		return err
	}
	now := make([]snapshot, len(entries))
	for i, e := range entries {
		sum, err := w.sum(e.Name())
		if err != nil {
			return err
		}
		// All that is there begins the next history, also what was never acknowledged or was to be
		// removed.
		now[i] = snapshot{Name: e.Name(), Sum: sum, Made: clock()}
	}
	for _, s := range w.h {
		i := slices.IndexFunc(now, func(n snapshot) bool { return n.Name == s.Name })
		switch {
		// One whose making or removal was not acknowledged may be there or not.
		case i < 0 && s.Made > 0 && s.Removing == 0:
			return fmt.Errorf("snapshot %s is gone", s.Name)
		case i >= 0 && s.Sum != "" && s.Sum != now[i].Sum:
			return fmt.Errorf("snapshot %s is another one than before", s.Name)
		}
	}
	w.round, w.ops, w.h = round, 0, now
	return nil
}

func (w *snapshots) counts() (int, int) { return w.ops, 0 }
func (w *snapshots) evidence() any      { return w.h }

func (w *snapshots) at(cut history.Cut) worker {
	c := *w
	c.h = slices.Clone(w.h)
	for i := range c.h {
		// Acknowledged while or after the copy was made: the image need not have it.
		if c.h[i].Made >= cut.Began {
			c.h[i].Made = 0
		}
		if c.h[i].Removing > cut.Ended {
			c.h[i].Removing = 0
		}
	}
	return &c
}

// A seeker looks for holes in the other workers' files, which makes the
// filesystem ask for what the page cache has of them.
type seeker struct {
	common
	mount string
	seeks int
}

func (w *seeker) prepare() error { return nil }

func (w *seeker) work(ctx context.Context) error {
	for ctx.Err() == nil {
		err := filepath.WalkDir(w.mount, func(name string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() && w.chance(50) {
				err = w.seek(name)
			}
			if errors.Is(err, fs.ErrNotExist) { // files come and go
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
		// It would otherwise leave the two cores little for those who write.
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

func (w *seeker) seek(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for at := int64(0); ; w.seeks++ {
		// Only errors are judged: what is a hole changes while it looks.
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("SEEK_DATA %s: %w", name, err)
		}
		if at, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); errors.Is(err, unix.ENXIO) {
			return nil // it was made shorter
		}
		if err != nil {
			return fmt.Errorf("SEEK_HOLE %s: %w", name, err)
		}
	}
}

func (w *seeker) judge(int) error       { w.seeks = 0; return nil }
func (w *seeker) counts() (int, int)    { return w.seeks, 0 }
func (w *seeker) at(history.Cut) worker { c := *w; return &c }
func (w *seeker) evidence() any         { return map[string]any{"seeks": w.seeks} }
