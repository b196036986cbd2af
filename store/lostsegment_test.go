package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store/vertex"
	"github.com/quarxtor/quarxfs/tiering"
)

// salvage repairs a store in dir that lacks segments, with all that nothing refers to swept.
func salvage(t *testing.T, dir string, o CheckOptions) *Store {
	t.Helper()
	opts := sampleOptions()
	opts.Salvage = true
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Repair(ctx, o); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, sampleOptions()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(ctx, CompactOptions{MinLive: 0.9, All: true}); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLostSegment takes each of three segments away. The store is refused with the file's name, and
// after a repair all that the others have is there, whatever is swept and compacted; what needs the
// lost one is an error and named, and it comes back when the same bytes do.
func TestLostSegment(t *testing.T) {
	root := fastRoot(t)
	made := filepath.Join(root, "made")
	conf := compactConfig()
	conf.Chunker.Min, conf.Chunker.Avg, conf.Chunker.Max = 4<<10, 16<<10, 64<<10
	if err := Init(made, conf); err != nil {
		t.Fatal(err)
	}
	s, err := Open(made, sampleOptions())
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string][]byte)
	for i := range 9 {
		name := fmt.Sprint("object ", i)
		want[name] = randomBytes(uint64(i), 300<<10)
		mustIngest(t, s, name, want[name])
	}
	if err := errors.Join(nameSnapshot(s, "kept", putSnapshot(t, s, "content")), s.Close()); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(made, hotDir, "*"))
	if err != nil || len(segments) < 3 {
		t.Fatal(segments, err)
	}
	for _, lost := range segments[:3] {
		t.Run(filepath.Base(lost), func(t *testing.T) {
			dir := filepath.Join(root, filepath.Base(lost))
			if err := copySparse(made, dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(dir, hotDir, filepath.Base(lost))); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir, sampleOptions())
			if files := DamagedFiles(err); !errors.Is(err, ErrDamaged) || len(files) != 1 || files[0].Next == "" {
				t.Fatalf("open: %v", err)
			}
			s := salvage(t, dir, CheckOptions{})
			whole, missing := 0, 0
			for name, data := range want {
				var got bytes.Buffer
				switch err := s.Fetch(ctx, name, 0, -1, &got); {
				case err == nil && bytes.Equal(got.Bytes(), data):
					whole++
				case errors.Is(err, ErrCorrupt) && bytes.HasPrefix(data, got.Bytes()):
					missing++
				default:
					t.Errorf("%s: %d bytes: %v", name, got.Len(), err)
				}
			}
			if whole < 4 || missing == 0 {
				t.Errorf("%d objects are whole, %d are not", whole, missing)
			}
			for _, b := range s.BadBlocks() {
				if _, err := s.Get(ctx, b.ID); !errors.Is(err, ErrCorrupt) {
					t.Errorf("%s was marked: %v", b.ID, err)
				}
			}
			for name, data := range want {
				mustIngest(t, s, name, data)
			}
			putSnapshot(t, s, "content")
			requireObjects(t, s, want)
			// What a name leads to may have been lost itself, and only its bytes are back.
			if _, err := s.Repair(ctx, CheckOptions{}); err != nil {
				t.Error(err)
			}
			requireSound(t, s)
			if bad := s.BadBlocks(); len(bad) > 0 {
				t.Errorf("%d blocks are still bad", len(bad))
			}
		})
	}
}

// TestLostParent loses the vertices above what another segment has: nothing of that may go.
func TestLostParent(t *testing.T) {
	dir := filepath.Join(fastRoot(t), "store")
	conf := smallConfig()
	conf.SegmentSize = 1 << 20
	if err := Init(dir, conf); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, sampleOptions())
	if err != nil {
		t.Fatal(err)
	}
	put := func(kind tiering.Kind, text string, links ...ID) ID {
		t.Helper()
		b := vertex.AppendLinks(nil, links)
		id, err := s.Put(kind, append(b, text...))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	seal := func() {
		t.Helper()
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
		n, ok := s.tiers.Active(tiering.Hot)
		if !ok {
			t.Fatal("no segment")
		}
		if err := s.tiers.Seal(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	file := mustIngest(t, s, "named", randomBytes(1, 5000)).ID
	loose, err := s.Put(tiering.Data, []byte("of a lost file"))
	if err != nil {
		t.Fatal(err)
	}
	sub := put(tiering.Tree, "directory", file, loose)
	other := put(tiering.Tree, "table", loose)
	seal()
	before := s.tiers.Segments()
	top := put(tiering.Tree, "top", sub, other)
	if err := nameSnapshot(s, "gone", put(tiering.Snapshot, "snapshot", top)); err != nil {
		t.Fatal(err)
	}
	seal()
	if err := errors.Join(s.Delete(ctx, "named"), s.Close()); err != nil {
		t.Fatal(err)
	}
	lost := filepath.Join(dir, hotDir, fmt.Sprintf("%016x.seg", before[0].Number+1))
	if err := os.Remove(lost); err != nil {
		t.Fatal(before, err)
	}
	s = salvage(t, dir, CheckOptions{LostDirectory: func(_ context.Context, id ID) ([]byte, error) {
		if id != sub {
			return nil, fmt.Errorf("no directory: %w", ErrCorrupt)
		}
		return append(vertex.AppendLinks(nil, []ID{id}), "made"...), nil
	}})
	for _, id := range []ID{sub, file, loose} {
		if _, err := s.Get(ctx, id); err != nil {
			t.Error(err)
		}
	}
	if names := snapshotNames(t, s); len(names) != 2 || names[1] != LostSnapshots+sub.Short() {
		t.Errorf("snapshots %q", names)
	}
	if err := s.RemoveSnapshot("gone"); err != nil {
		t.Error(err)
	}
	if _, err := s.Sweep(ctx); err != nil {
		t.Error(err)
	}
	requireSound(t, s) // the last reference to what is lost has gone
}

// TestLostObject takes segments out of a bucket: fsck names them, as it does files.
func TestLostObject(t *testing.T) {
	s, _, _ := openBucket(t)
	kept := ingestWords(t, s, "a", "b", "c", "d", "e", "f")
	ids, _ := dataBlocks(t, s)
	if _, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopenBucket(t, s.Dir())
	requireColdReach(t, s, nil)
	c, _ := s.Cold()
	bucket, err := s.bucket(&c)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := bucket.List(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	lost := ""
	for _, o := range objects {
		if filepath.Ext(o.Name) == ".seg" && lost == "" { // later ones may be in the spool as well
			lost = o.Name
		}
	}
	if err := bucket.Remove(c.Dir + "/" + lost); err != nil {
		t.Fatal(objects, err)
	}
	named := func() bool {
		t.Helper()
		r, err := s.Check(ctx, CheckOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(r.Problems, func(p Problem) bool { return p.Subject == c.Dir+"/"+lost })
	}
	if !named() {
		t.Errorf("%s is not named", lost)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = salvage(t, s.Dir(), CheckOptions{})
	requireColdReach(t, s, nil)
	if named() {
		t.Errorf("%s is still named after a repair", lost)
	}
	for name, data := range kept {
		if err := s.Fetch(ctx, name, 0, -1, new(bytes.Buffer)); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		mustIngest(t, s, name, data)
	}
	requireObjects(t, s, kept)
	requireSound(t, s)
}

// TestColdDirectoryReplaced puts another directory where a cold tier was that is in use: nothing is
// changed in it, the tier is out of reach, and nothing counts as damaged until it is back.
func TestColdDirectoryReplaced(t *testing.T) {
	s, _, cold := openCold(t)
	kept := ingestWords(t, s, "a", "b")
	ids, _ := dataBlocks(t, s)
	if _, err := s.Move(ctx, tiering.Cold, ids[:len(ids)/2], MoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopenCold(t, s.Dir())
	other := filepath.Join(filepath.Dir(cold), "other")
	if err := copySparse(cold, other); err != nil {
		t.Fatal(err)
	}
	marker := filepath.Join(other, tiering.MarkerName)
	if err := os.WriteFile(marker, []byte("quarxfs cold tier, version 1\n00000000000000000000000000000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	swap := func() {
		t.Helper()
		if err := unix.Renameat2(unix.AT_FDCWD, cold, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
			t.Fatal(err)
		}
	}
	swap()
	before := tree(t, cold)
	for range 4 { // until all that was open has been used up
		if _, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{}); errors.Is(err, ErrUnavailable) {
			break
		}
		mustIngest(t, s, "more", words(9, 3<<20))
		ids, _ = dataBlocks(t, s)
	}
	if after := tree(t, cold); !maps.Equal(before, after) {
		t.Errorf("the directory that is there now was changed:\n%v\n%v", before, after)
	}
	if bad := s.BadBlocks(); len(bad) > 0 {
		t.Errorf("%d blocks count as bad", len(bad))
	}
	swap()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s = reopenCold(t, s.Dir())
	requireObjects(t, s, kept)
	requireSound(t, s)
}
