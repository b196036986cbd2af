package db

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestAdviseTables: the kernel reads around page faults in the tables of a small
// database, not in those of a large one, whose indexes are in memory when it opens.
func TestAdviseTables(t *testing.T) {
	opt := testOptions(t.TempDir())
	fillAndClose(t, opt)
	for _, large := range []bool{false, true} {
		opt.readAround = 1 << 40
		if large {
			opt.readAround = 1
		}
		d, err := Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		seen, random := tableMappings(t, opt.Dir)
		if seen == 0 || large && random != seen || !large && random != 0 {
			t.Errorf("large: %v: %d of %d tables are read at random", large, random, seen)
		}
		if _, err := d.Get(benchKey(7)); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestIndexOf finds the index of a table, which has a filter of 14 bits a key
// and the first key of each block, and nothing in what is no table.
func TestIndexOf(t *testing.T) {
	opt := testOptions(t.TempDir())
	opt.Uncompressed = true // since the size of tables tells how many blocks they have
	fillAndClose(t, opt)
	names, size := tables(filepath.Join(opt.Dir, instanceDirs[0]))
	var index int64
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		from, to, err := indexOf(bytes.NewReader(b), int64(len(b)))
		if err != nil || from <= 0 || to <= from || to >= int64(len(b)) {
			t.Errorf("%s: index from %d to %d of %d, %v", name, from, to, len(b), err)
		}
		index += to - from
		if err := warmTable(name, make([]byte, 1000)); err != nil {
			t.Errorf("warm %s: %v", name, err)
		}
	}
	if least := int64(fillRows * 14 / 8); index < least || index > least+size/20 {
		t.Errorf("indexes of %d bytes in tables of %d, want some %d and a little", index, size, least)
	}
	for _, damaged := range []string{"", "abc", strings.Repeat("\xff", 40), "\x00\x00\x00\x00", "\x00\x00\x00\x09\x00\x00\x00\x00"} {
		if _, _, err := indexOf(strings.NewReader(damaged), int64(len(damaged))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v", damaged, err)
		}
	}
}

const fillRows = 20000

func fillAndClose(t *testing.T, opt Options) {
	t.Helper()
	d, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(fillRows) {
		d.Set(benchKey(n), make([]byte, 100))
	}
	commit(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDropPages: what is let go of the tables is not in the process's memory any more, and
// can be read all the same.
func TestDropPages(t *testing.T) {
	opt := testOptions(t.TempDir())
	fillAndClose(t, opt)
	d, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Verify(); err != nil {
		t.Fatal(err)
	}
	before := mappedBytes(t, opt.Dir)
	d.inUse().dropPages()
	if after := mappedBytes(t, opt.Dir); before == 0 || after != 0 {
		t.Errorf("%d bytes of tables were in memory, and are %d", before, after)
	}
	if err := d.Verify(); err != nil {
		t.Error(err)
	}
}

// mappedBytes returns what of the tables in dir is in this process's memory.
func mappedBytes(t *testing.T, dir string) (sum int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	in := false
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if !strings.HasSuffix(fields[0], ":") {
			name := fields[len(fields)-1]
			in = strings.HasPrefix(name, dir) && strings.HasSuffix(name, sstExt)
		}
		if in && fields[0] == "Rss:" {
			kb, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += kb << 10
		}
	}
	return sum
}

// tableMappings counts the tables that are mapped, and those of them that the
// kernel thinks are read at random.
func tableMappings(t *testing.T, dir string) (all, random int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	in := false
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if strings.Contains(fields[0], "-") && !strings.HasSuffix(fields[0], ":") {
			name := fields[len(fields)-1]
			in = strings.HasPrefix(name, dir) && strings.HasSuffix(name, ".sst")
			if in {
				all++
			}
		}
		if in && fields[0] == "VmFlags:" && strings.Contains(line, " rr ") {
			random++
		}
	}
	return all, random
}
