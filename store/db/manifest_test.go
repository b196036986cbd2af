package db

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
)

func encoded(t *testing.T, changes ...*pb.ManifestChange) []byte {
	t.Helper()
	set, err := encodeSet(&pb.ManifestChangeSet{Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// usedDir is where the instance in use is, of a database that is closed.
func usedDir(dir string) string {
	current, err := readCurrent(dir)
	if err != nil || current == "" {
		panic(fmt.Sprint(current, err))
	}
	return filepath.Join(dir, current)
}

func TestRepairManifest(t *testing.T) {
	dir := t.TempDir()
	if err := filled(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(usedDir(dir), badger.ManifestFilename)
	list, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	sets, whole := readSets(list)
	if !whole || len(sets) == 0 {
		t.Fatalf("%d sets, whole %v", len(sets), whole)
	}
	void := encoded(t, &pb.ManifestChange{Id: 900, Op: pb.ManifestChange_CREATE})
	for what, between := range map[string][]byte{
		"a table that was taken back": void,
		"a torn set":                  void[:len(void)-3],
		"both":                        append(append(void[:len(void):len(void)], void[:5]...), 0, 0),
	} {
		bad := append(append(list[:manifestHeader:manifestHeader], between...), list[manifestHeader:]...)
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := countRows(t, dir); n != someRows {
			t.Errorf("%s: %d rows of %d", what, n, someRows)
		}
	}
	missing := encoded(t, &pb.ManifestChange{Id: 901, Op: pb.ManifestChange_CREATE, Level: 6})
	if err := os.WriteFile(name, append(list, missing...), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := Open(testOptions(dir)); err == nil {
		_ = d.Close()
		t.Error("a table of level 6 is missing, and nobody said so")
	}
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
