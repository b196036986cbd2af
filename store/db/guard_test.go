package db

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"google.golang.org/protobuf/proto"
)

const guardRows = 2000

func guardKey(n int) []byte { return fmt.Appendf(nil, "row%05d", n) }

// filled opens a database in dir and writes rows; half are in tables, half in the memtable.
func filled(t *testing.T, dir string) *DB {
	t.Helper()
	d, err := Open(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	for half := range 2 {
		for n := half; n < guardRows; n += 2 {
			d.Set(guardKey(n), []byte(strings.Repeat("v", 50)))
		}
		d.Freeze()
		if err := d.Write(nil); err != nil {
			t.Fatal(err)
		}
		if half == 0 {
			if _, err := d.Compact(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return d
}

func countRows(t *testing.T, dir string) int {
	t.Helper()
	d, err := Open(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	n := 0
	if err := d.Scan(nil, nil, func(_, _ []byte) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// lose makes Badger drop rows in a compaction under a guard.
func lose(t *testing.T, d *DB) *guard {
	t.Helper()
	if err := d.drain(); err != nil {
		t.Fatal(err)
	}
	g, err := d.begin()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.kv.DropPrefix([]byte("row001")); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestCompactionThatLosesRowsIsTakenBack(t *testing.T) {
	dir := t.TempDir()
	d := filled(t, dir)
	d.writing.Lock()
	err := lose(t, d).release()
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "lost in a compaction") {
		t.Fatalf("release: %v", err)
	}
	_ = d.applier.fail(err)
	d.writing.Unlock()
	d.Set([]byte("more"), []byte("x"))
	d.Freeze()
	if err := d.Write(nil); !errors.Is(err, ErrFailed) {
		t.Errorf("a commit after the loss: %v", err)
	}
	if err := d.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v", err)
	}
	if n := countRows(t, dir); n != guardRows {
		t.Errorf("%d rows of %d", n, guardRows)
	}
	if _, err := os.Stat(filepath.Join(dir, keepName)); !os.IsNotExist(err) {
		t.Errorf("keep is still there: %v", err)
	}
}

func TestCrashInCompaction(t *testing.T) {
	d := filled(t, t.TempDir())
	d.writing.Lock()
	g := lose(t, d)
	image := filepath.Join(t.TempDir(), "image")
	if err := os.CopyFS(image, os.DirFS(d.opt.Dir)); err != nil {
		t.Fatal(err)
	}
	g.close()
	d.writing.Unlock()
	_ = d.Close()
	for range 2 {
		if n := countRows(t, image); n != guardRows {
			t.Errorf("%d rows of %d", n, guardRows)
		}
	}
}

func encodeSet(t *testing.T, changes ...*pb.ManifestChange) []byte {
	t.Helper()
	body, err := proto.Marshal(&pb.ManifestChangeSet{Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	set := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	set = binary.BigEndian.AppendUint32(set, crc32.Checksum(body, castagnoli()))
	return append(set, body...)
}

func TestMendManifest(t *testing.T) {
	dir := t.TempDir()
	if err := filled(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, badger.ManifestFilename)
	list, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	sets, whole := readSets(list)
	if !whole || len(sets) == 0 {
		t.Fatalf("%d sets, whole %v", len(sets), whole)
	}
	void := encodeSet(t, &pb.ManifestChange{Id: 900, Op: pb.ManifestChange_CREATE})
	for what, between := range map[string][]byte{
		"a table that was taken back": void,
		"a torn set":                  void[:len(void)-3],
		"both":                        append(append(void[:len(void):len(void)], void[:5]...), 0, 0),
	} {
		bad := append(append(list[:manifestHeader:manifestHeader], between...), list[manifestHeader:]...)
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := countRows(t, dir); n != guardRows {
			t.Errorf("%s: %d rows of %d", what, n, guardRows)
		}
	}
	missing := encodeSet(t, &pb.ManifestChange{Id: 901, Op: pb.ManifestChange_CREATE, Level: 6})
	if err := os.WriteFile(name, append(list, missing...), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := Open(testOptions(dir)); err == nil {
		_ = d.Close()
		t.Error("a table of level 6 is missing, and nobody said so")
	}
}

func TestUnreadableTable(t *testing.T) {
	d := filled(t, t.TempDir())
	if _, err := d.Compact(); err != nil {
		t.Fatal(err)
	}
	names, _ := tables(d.opt.Dir)
	for _, name := range names {
		if err := os.Truncate(name, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Get(guardKey(7)); !errors.Is(err, ErrUnreadable) {
		t.Errorf("get: %v", err)
	}
	err := d.Scan(nil, nil, func(_, _ []byte) error { return nil })
	if !errors.Is(err, ErrUnreadable) {
		t.Errorf("scan: %v", err)
	}
	d.Set([]byte("more"), []byte("x"))
	d.Freeze()
	if err := d.Write(nil); err != nil {
		t.Errorf("a commit: %v", err)
	}
	_ = d.Close()
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte("Bdgr\x00\x00\x00\x08\x00\x00\x00\x02"))
	f.Fuzz(func(t *testing.T, list []byte) {
		sets, _ := readSets(list)
		size := manifestHeader
		for _, s := range sets {
			size += len(s.raw)
		}
		if len(sets) > 0 && size > len(list) {
			t.Fatal("sets overlap")
		}
	})
}

func TestCompactsByItself(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	const each = 100
	value := strings.Repeat("v", 4000)
	commits := 0
	for !compactedOnce(d) && !d.crowded() {
		if commits++; commits > 1000 {
			t.Fatalf("not compacted after %d MB: %v", commits*each*len(value)/1e6, d.kv.Levels())
		}
		for n := range each {
			d.Set(guardKey(commits*each+n), []byte(value))
		}
		d.Freeze()
		if err := d.Write(nil); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); !compactedOnce(d); time.Sleep(time.Millisecond) {
		d.considerCompacting() // as the next commits would
		if time.Now().After(deadline) {
			t.Fatalf("not compacted when level 0 was crowded: %v", d.kv.Levels())
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if n := countRows(t, dir); n != commits*each {
		t.Errorf("%d rows of %d", n, commits*each)
	}
}

// compactedOnce tells whether anything is below level 0.
func compactedOnce(d *DB) bool {
	for _, l := range d.kv.Levels() {
		if l.Level > 0 && l.NumTables > 0 {
			return true
		}
	}
	return false
}
