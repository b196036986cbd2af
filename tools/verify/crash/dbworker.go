package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/quarxtor/quarxfs/tools/verify/crash/history"
)

// A saver replaces a file as editors do: temporary file, rename over the old.
// Half of its saves do not fsync the temporary file, where the crash contract
// promises what POSIX does not: a rename is never there without the data.
type saver struct {
	common
	h history.Saver
}

func (w *saver) prepare() error {
	return errors.Join(makeDirs(w.dir), writeSynced(w.path("config"), nil))
}

func (w *saver) counts() (int, int) { return len(w.h.Saves), w.fsyncs }

func (w *saver) evidence() any {
	return map[string]any{"saves": len(w.h.Saves), "acknowledged": w.h.Synced, "times": w.h.Times}
}

func (w *saver) at(cut history.Cut) worker {
	c := *w
	c.h = cut.Saver(w.h)
	return &c
}

func (w *saver) judge(round int) error {
	seen, err := os.ReadFile(w.path("config"))
	if err != nil {
		return err
	}
	// Before the first round there is no history; what is there becomes its base.
	if w.round > 0 {
		if err := w.h.Judge(seen); err != nil {
			return fmt.Errorf("config: %w", err)
		}
	}
	w.round, w.tags, w.fsyncs, w.h = round, 0, 0, history.Saver{Base: seen}
	return nil
}

func (w *saver) work(ctx context.Context) error {
	for ctx.Err() == nil {
		content := make([]byte, w.between(1, 100<<10))
		history.Fill(content, w.tag(), 0)
		// Known to the judge before the rename that may make it visible.
		if err := w.saveTemporary(content); err != nil {
			return err
		}
		w.h.Saves, w.h.Times = append(w.h.Saves, content), append(w.h.Times, history.Span{Start: clock()})
		if err := os.Rename(w.path("config.tmp"), w.path("config")); err != nil {
			return err
		}
		if w.chance(50) {
			if err := fsyncDir(w.dir); err != nil {
				return err
			}
			w.h.Synced = len(w.h.Saves)
			w.h.Times[w.h.Synced-1].End = clock()
			if err := w.acknowledged(ack{Op: w.h.Synced, Path: "config", Len: len(content), Sum: strconv.FormatUint(history.Sum(content), 16)}); err != nil {
				return err
			}
		}
		// After every save, while the daemon lives: bytes that are wrong now are no crash's doing.
		if err := readBack(w.path("config"), content); err != nil {
			return err
		}
	}
	return nil
}

func (w *saver) saveTemporary(content []byte) error {
	f, err := os.Create(w.path("config.tmp"))
	if err != nil {
		return err
	}
	// In parts, so that a crash may come with some of them written.
	for part := range slices.Chunk(content, w.between(1000, 40<<10)) {
		if _, err := f.Write(part); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if w.chance(50) {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// A database does transactions with a rollback journal, in SQLite's order of
// writes and fsyncs.
type database struct {
	common
	h  history.Journaled
	db []byte // after the last transaction
}

const dbPages = 64

func (w *database) prepare() error {
	db := make([]byte, dbPages*history.PageSize)
	history.Fill(db, history.NewTag(0, w.id, 0), 0)
	return errors.Join(makeDirs(w.dir), writeSynced(w.path("db"), db))
}

func (w *database) counts() (int, int) { return len(w.h.Txns), w.fsyncs }

func (w *database) evidence() any {
	return map[string]any{"transactions": w.h.Txns, "acknowledged": w.h.Committed, "times": w.h.Times}
}

func (w *database) at(cut history.Cut) worker {
	c := *w
	c.h = cut.Journaled(w.h)
	return &c
}

// judge also recovers, as the program that opens a database does.
func (w *database) judge(round int) error {
	db, err := os.ReadFile(w.path("db"))
	if err != nil {
		return err
	}
	// A journal that is there says that a transaction had begun and may be half done.
	journal, err := os.ReadFile(w.path("db-journal"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if w.round > 0 {
		// Judged as the crash left it, then recovered durably: the next round's history begins from
		// there, and a crash may come before its first fsync.
		if db, err = w.h.Judge(db, journal); err != nil {
			return err
		}
		if err := writeSynced(w.path("db"), db); err != nil {
			return err
		}
		if err := os.Remove(w.path("db-journal")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := fsyncDir(w.dir); err != nil {
			return err
		}
	}
	// Cloned, as the transactions of the round change db and the base must stay.
	w.round, w.tags, w.fsyncs, w.h, w.db = round, 0, 0, history.Journaled{Base: db}, slices.Clone(db)
	return nil
}

func (w *database) work(ctx context.Context) error {
	f, err := os.OpenFile(w.path("db"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for err == nil && ctx.Err() == nil {
		pages := w.rng.Perm(dbPages)[:w.between(1, 8)]
		err = w.transaction(f, history.Txn{Pages: pages, Tag: w.tag()})
	}
	_ = f.Close() // of a dead filesystem, as a rule
	return err
}

func (w *database) transaction(f *os.File, t history.Txn) error {
	// Known to the judge before the first byte is written.
	w.h.Txns, w.h.Times = append(w.h.Txns, t), append(w.h.Times, history.Span{Start: clock()})
	// The old pages are durable before one of them is overwritten: this order is what makes the
	// rollback possible.
	if err := writeSynced(w.path("db-journal"), history.MakeJournal(w.db, t)); err != nil {
		return err
	}
	for _, n := range t.Pages {
		page := w.db[n*history.PageSize : (n+1)*history.PageSize]
		t.Page(page, n)
		if _, err := f.WriteAt(page, int64(n)*history.PageSize); err != nil {
			return err
		}
	}
	// And the new ones before the journal goes, which is the commit.
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Remove(w.path("db-journal")); err != nil {
		return err
	}
	// Removing is not durable by itself; after this nobody may roll it back.
	if err := fsyncDir(w.dir); err != nil {
		return err
	}
	w.h.Committed = len(w.h.Txns)
	w.h.Times[w.h.Committed-1].End = clock()
	if err := w.acknowledged(ack{Op: w.h.Committed, Path: "db", Len: len(w.db), Sum: strconv.FormatUint(history.Sum(w.db), 16)}); err != nil {
		return err
	}
	return readBack(w.path("db"), w.db)
}
