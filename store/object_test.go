package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

var ctx = context.Background()

// smallConfig cuts blocks of about 256 bytes, so that a few megabytes make
// trees.
func smallConfig() Config {
	c := DefaultConfig()
	c.Chunker = chunk.Config{Name: chunk.FastCDC, Min: 64, Avg: 256, Max: 1024, Key: bytes.Repeat([]byte{7}, chunk.KeySize)}
	c.SegmentSize = 1 << 20
	return c
}

func newStore(t testing.TB, c Config) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := Init(dir, c); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{SweepInterval: -1, Ballast: -1, MemTable: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// mustIngest stores an object. Its name may have been another one's.
func mustIngest(t testing.TB, s *Store, name string, data []byte) ObjectInfo {
	t.Helper()
	o, err := s.Ingest(ctx, bytes.NewReader(data), name, Replace)
	if err != nil {
		t.Fatal(err)
	}
	if o.Size != int64(len(data)) {
		t.Fatalf("ingested %d bytes of %d", o.Size, len(data))
	}
	return o
}

func fetch(t testing.TB, s *Store, ref string, off, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Fetch(ctx, ref, off, n, &b); err != nil {
		t.Fatalf("fetch %s %d+%d: %v", ref, off, n, err)
	}
	return b.Bytes()
}

func mustCheck(t testing.TB, s *Store) Report {
	t.Helper()
	r, err := s.Check(ctx, CheckOptions{Data: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Errorf("check: %s", p)
	}
	return r
}

func TestObjectShapes(t *testing.T) {
	s := newStore(t, smallConfig())
	sparse := make([]byte, 600<<10)
	copy(sparse[200<<10:], randomBytes(1, 5000))
	copy(sparse[590<<10:], randomBytes(2, 100))
	for name, data := range map[string][]byte{
		"empty":  {},
		"byte":   {1},
		"zero":   {0},
		"zeroes": make([]byte, 100_000),
		"sparse": sparse,
		"block":  randomBytes(3, 60),
		"tree":   randomBytes(4, 2<<20),
		"forest": randomBytes(5, 3<<20+17),
	} {
		t.Run(name, func(t *testing.T) {
			o := mustIngest(t, s, name, data)
			if !bytes.Equal(fetch(t, s, name, 0, -1), data) {
				t.Fatal("fetched something else")
			}
			rng := rand.New(rand.NewPCG(1, 2))
			for range 50 {
				off := rng.Int64N(int64(len(data)) + 1)
				n := rng.Int64N(min(3000, int64(len(data))-off+10))
				want := data[off:min(off+n, int64(len(data)))]
				if !bytes.Equal(fetch(t, s, o.ID.String(), off, n), want) {
					t.Fatalf("fetched something else at %d+%d", off, n)
				}
			}
			if err := s.Fetch(ctx, name, int64(len(data))+1, -1, io.Discard); !errors.Is(err, ErrRange) {
				t.Errorf("behind the end: %v", err)
			}
			got, err := s.Stat(ctx, o.ID.String()[:12])
			if err != nil || got.Name != name || got.ID != o.ID || got.Size != o.Size {
				t.Errorf("stat: %+v, %v", got, err)
			}
		})
	}
	mustCheck(t, s)
}

// The cuts must not depend on how the stream fell into buffers.
func TestObjectLargerThanBatches(t *testing.T) {
	s := newStore(t, DefaultConfig())
	for _, n := range []int{batchSize - 1, batchSize, 2 * batchSize, 2*batchSize + 300_000} {
		data := randomBytes(6, n)
		o := mustIngest(t, s, "", data)
		slow, err := s.Ingest(ctx, iotest.HalfReader(bytes.NewReader(data)), "slow", Replace)
		if err != nil || slow.ID != o.ID {
			t.Errorf("%d bytes in small reads: %s, not %s: %v", n, slow.ID, o.ID, err)
		}
		if !bytes.Equal(fetch(t, s, o.ID.String(), 0, -1), data) {
			t.Fatal("fetched something else")
		}
	}
	mustCheck(t, s)
}

func TestOneBlockObjectIsItsBlock(t *testing.T) {
	s := newStore(t, DefaultConfig())
	o := mustIngest(t, s, "a", []byte("hello"))
	if o.ID != chunk.Sum([]byte("hello")) {
		t.Errorf("the object's ID is %s", o.ID)
	}
	if o = mustIngest(t, s, "z", make([]byte, 5)); o.Data != 0 {
		t.Errorf("zeroes have %d bytes of data", o.Data)
	}
}

// An insertion must cost a few blocks and the vertices above them.
func TestInsertionMakesFewVertices(t *testing.T) {
	s := newStore(t, smallConfig())
	data := randomBytes(9, 3<<20)
	mustIngest(t, s, "a", data)
	before := s.Stats().Totals
	mid := len(data) / 2
	edited := bytes.Join([][]byte{data[:mid], randomBytes(10, 100), data[mid:]}, nil)
	mustIngest(t, s, "b", edited)
	after := s.Stats().Totals
	data1 := after.Blocks[segment.Data] - before.Blocks[segment.Data]
	files := after.Blocks[segment.File] - before.Blocks[segment.File]
	t.Logf("%d blocks, %d vertices; new: %d and %d", before.Blocks[segment.Data], before.Blocks[segment.File], data1, files)
	if data1 > 40 || files > 6 {
		t.Errorf("an insertion made %d blocks and %d vertices", data1, files)
	}
	mustCheck(t, s)
}

func TestNamesAndDelete(t *testing.T) {
	s := newStore(t, smallConfig())
	a := mustIngest(t, s, "a", randomBytes(1, 5000))
	mustIngest(t, s, "b", randomBytes(1, 5000))
	c := mustIngest(t, s, "", randomBytes(2, 5000))
	mustIngest(t, s, "", randomBytes(2, 5000)) // again: the same reference
	var names []string
	if err := s.Objects(ctx, "", func(o ObjectInfo) error { names = append(names, o.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(names, " "), c.ID.String()+" a b"; got != want && got != "a b "+c.ID.String() {
		t.Errorf("objects %s", got)
	}
	if err := s.Delete(ctx, a.ID.String()); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("delete by an ID of two names: %v", err)
	}
	for _, ref := range []string{"a", a.ID.String()[:8], c.ID.String()[:20]} {
		if err := s.Delete(ctx, ref); err != nil {
			t.Errorf("delete %s: %v", ref, err)
		}
	}
	for _, ref := range []string{"a", "b", "", "zz", a.ID.String()[:3], strings.Repeat("0", 64)} {
		if _, err := s.Stat(ctx, ref); !errors.Is(err, ErrNotFound) {
			t.Errorf("stat %q: %v", ref, err)
		}
	}
	mustCheck(t, s)
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if got := s.Stats().Totals; got != (Totals{Appended: got.Appended}) {
		t.Errorf("left after all was deleted: %+v", got)
	}
	mustCheck(t, s)
}

func TestReplacedNameReleasesTheOldObject(t *testing.T) {
	s := newStore(t, smallConfig())
	mustIngest(t, s, "a", randomBytes(1, 50_000))
	if _, err := s.Ingest(ctx, bytes.NewReader(randomBytes(2, 50_000)), "a"); !errors.Is(err, ErrNameTaken) {
		t.Errorf("a name that is taken: %v", err)
	}
	if _, err := s.Ingest(ctx, bytes.NewReader(randomBytes(1, 50_000)), "a"); err != nil {
		t.Errorf("the same bytes take nothing away: %v", err)
	}
	if _, err := s.Ingest(ctx, bytes.NewReader(randomBytes(2, 50_000)), "a", Replace); err != nil {
		t.Fatal(err)
	}
	mustIngest(t, s, "a", randomBytes(2, 50_000))
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if got := s.Stats().Totals; got.Objects.Count != 1 || got.Unique() != 50_000 {
		t.Errorf("%d objects, %d bytes", got.Objects.Count, got.Unique())
	}
	mustCheck(t, s)
}

func TestBadNames(t *testing.T) {
	s := newStore(t, smallConfig())
	for _, name := range []string{"a\x00", "a\nb", "\xff", strings.Repeat("x", MaxObjectName+1), strings.Repeat("ab", 32)} {
		if _, err := s.Ingest(ctx, strings.NewReader("x"), name); !errors.Is(err, ErrConfig) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestAmbiguousPrefix(t *testing.T) {
	s := newStore(t, smallConfig())
	seen := make(map[string]string)
	for i := 0; ; i++ { // 65,536 prefixes: two collide after some hundreds
		data := fmt.Sprint("object ", i)
		id := chunk.Sum([]byte(data)).String()
		first, ok := seen[id[:4]]
		seen[id[:4]] = data
		if !ok {
			continue
		}
		mustIngest(t, s, "", []byte(first))
		mustIngest(t, s, "", []byte(data))
		if _, err := s.Stat(ctx, id[:4]); !errors.Is(err, ErrAmbiguous) {
			t.Errorf("stat %s: %v", id[:4], err)
		}
		if o, err := s.Stat(ctx, id[:16]); err != nil || o.ID.String() != id {
			t.Errorf("stat %s: %v", id[:16], err)
		}
		return
	}
}

type failingReader struct{ n int }

func (r *failingReader) Read(p []byte) (int, error) {
	if r.n <= 0 {
		return 0, errors.New("the line went dead")
	}
	n := min(r.n, len(p))
	copy(p, randomBytes(uint64(r.n), n))
	r.n -= n
	return n, nil
}

func TestFailedIngestLeavesNothing(t *testing.T) {
	s := newStore(t, DefaultConfig())
	if _, err := s.Ingest(ctx, &failingReader{9 << 20}, "a"); err == nil {
		t.Fatal("no error")
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Ingest(cancelled, strings.NewReader("x"), "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	mustCheck(t, s)
	if _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if got := s.Stats().Totals; got != (Totals{Appended: got.Appended}) {
		t.Errorf("left: %+v", got)
	}
}

// A sweep that runs all the time must not take what an Ingest has put and not
// yet referred to.
func TestSweepDuringIngest(t *testing.T) {
	s := newStore(t, smallConfig())
	stop := make(chan struct{})
	swept := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				swept <- nil
				return
			default:
			}
			if _, err := s.Sweep(ctx); err != nil {
				swept <- err
				return
			}
		}
	}()
	for i := range 6 {
		data := randomBytes(uint64(i/2), 600<<10)
		mustIngest(t, s, fmt.Sprint(i), data)
		if i%2 == 1 {
			if err := s.Delete(ctx, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(fetch(t, s, fmt.Sprint(i/2*2), 0, -1), data) {
			t.Fatal("fetched something else")
		}
	}
	close(stop)
	if err := <-swept; err != nil {
		t.Fatal(err)
	}
	mustCheck(t, s)
}
