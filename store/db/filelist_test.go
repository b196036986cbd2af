package db

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestListOfUnbegunLog: Badger makes a memtable's log in steps, and a list that is written
// between them is one that can be read.
func TestListOfUnbegunLog(t *testing.T) {
	d, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	b := d.inUse()
	for n, size := range []int{0, 7, memHeader} {
		err := errors.Join(os.WriteFile(memName(b.dir, 70+n), make([]byte, size), 0o600), b.updateList(d, d.clog.seq, 0, 0, true))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(b.dir, listName))
		if err != nil {
			t.Fatal(err)
		}
		l, err := parseList(text)
		if err != nil {
			t.Fatal(err)
		}
		kept := slices.ContainsFunc(l.mems, func(m memLog) bool { return m.seq == 70+n })
		if kept != (size == memHeader) {
			t.Errorf("a log of %d bytes is kept: %v", size, kept)
		}
		if err := os.Remove(memName(b.dir, 70+n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	// As lists were written before.
	text := fmt.Sprintf("%s\nlog %032x\nseq 1\nsettled 0\nneeded 0\nmem 3 \n", listMagic, 1)
	text += fmt.Sprintf("crc32c %08x\n", crc32.Checksum([]byte(text), castagnoli()))
	if l, err := parseList([]byte(text)); err != nil || len(l.mems) != 1 || l.mems[0].begun() {
		t.Errorf("%+v, %v", l, err)
	}
}
