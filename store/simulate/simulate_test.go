package simulate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/tiering"
)

func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// prose is bytes that compress.
func prose(rng *rand.Rand, n int) []byte {
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "line %d of %d\n", rng.IntN(1000), rng.IntN(100))
	}
	return b.Bytes()[:n]
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// someTree has big and small files, versions of the same file, zeroes at all
// places, and files of exactly a batch.
func someTree(t *testing.T, batch int) string {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	big := random(rng, 3<<20)
	write(t, dir+"/a/big", big)
	write(t, dir+"/b/inserted", append(append(bytes.Clone(big[:1<<20]), "some more"...), big[1<<20:]...))
	write(t, dir+"/text", prose(rng, 2<<20))
	write(t, dir+"/zeroes", make([]byte, 1<<20))
	write(t, dir+"/mixed", append(append(random(rng, 70_001), make([]byte, 600_000)...), random(rng, 5)...))
	write(t, dir+"/empty", nil)
	for i, n := range []int{batch - 1, batch, batch + 1, 2 * batch} {
		write(t, fmt.Sprintf("%s/edge/%d", dir, i), random(rng, n))
	}
	for i := range 400 {
		write(t, fmt.Sprintf("%s/small/%d/%d", dir, i%7, i), prose(rng, rng.IntN(5000)))
		if i%5 == 0 {
			write(t, fmt.Sprintf("%s/copies/%d", dir, i), prose(rand.New(rand.NewPCG(uint64(i/50), 0)), 9000))
		}
	}
	return dir
}

// ingest stores all regular files below dir as objects of a new store, and
// returns with its totals how many bytes of them are not in holes.
func ingest(t *testing.T, dir string, conf store.Config) (totals store.Totals, data int64) {
	at := t.TempDir() + "/store"
	if err := store.Init(at, conf); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(at, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		o, err := st.Ingest(t.Context(), f, path)
		data += o.Data
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return st.Stats().Totals, data
}

func run(t *testing.T, o Options, roots ...string) Report {
	t.Helper()
	r, err := Run(t.Context(), roots, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestAgreesWithStore: to the byte, since the chunkers have the store's key.
func TestAgreesWithStore(t *testing.T) {
	var configs []store.Config
	for _, avg := range []int{4 << 10, 16 << 10, 64 << 10} {
		c := store.DefaultConfig()
		c.Chunker.Min, c.Chunker.Avg, c.Chunker.Max = avg/4, avg, avg*4
		configs = append(configs, c)
		c.Chunker = chunk.Config{Name: chunk.Fixed, Avg: avg}
		configs = append(configs, c)
	}
	batch := 8 * 64 << 10 // twice the longest block
	dir := someTree(t, batch)
	o := Options{Codecs: []tiering.Codec{tiering.S2, tiering.Raw}, buffer: batch}
	for _, c := range configs {
		o.Chunkers = append(o.Chunkers, c.Chunker)
	}
	got := run(t, o, dir).Results
	for i, c := range configs {
		for j, compression := range []string{"s2", "none"} {
			c.Compression = compression
			want, logical := ingest(t, dir, c)
			r := got[2*i+j]
			if r.Blocks != want.Blocks[tiering.Data] || r.Unique != want.Unique() || r.Stored != want.Stored[tiering.Data] || r.Logical != logical {
				t.Errorf("%s of %d, %s: %d blocks, %d unique, %d stored, %d logical bytes; the store has %d, %d, %d, %d",
					c.Chunker.Name, c.Chunker.Avg, compression, r.Blocks, r.Unique, r.Stored, r.Logical,
					want.Blocks[tiering.Data], want.Unique(), want.Stored[tiering.Data], logical)
			}
			if r.Logical+r.Zeroes < 1<<23 || r.Zeroes < 1<<20 || r.Uses <= r.Blocks || r.SampledOneIn != 1 || r.Speed <= 0 {
				t.Errorf("%+v", r)
			}
		}
	}
}

// TestAgreesWithDefaultStore: the key of a store is random, so its blocks are
// not these; what they add up to is the same within a per cent.
func TestAgreesWithDefaultStore(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 10,000 files")
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("needs a Go tree: ", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src")
	c := chunk.Default()
	c.Key = nil
	r := run(t, Options{Chunkers: []chunk.Config{c}, Codecs: []tiering.Codec{tiering.S2}}, dir).Results[0]
	want, _ := ingest(t, dir, store.DefaultConfig())
	for _, v := range []struct {
		what      string
		got, want int64
	}{{"stored bytes", r.Stored, want.Stored[tiering.Data]}, {"unique bytes", r.Unique, want.Unique()}, {"blocks", r.Blocks, want.Blocks[tiering.Data]}} {
		if off := math.Abs(float64(v.got)/float64(v.want) - 1); off > 0.01 {
			t.Errorf("%s: %d, the store has %d: off by %.2f %%", v.what, v.got, v.want, 100*off)
		}
	}
}

func TestSampling(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(3, 4))
	data := append(random(rng, 24<<20), prose(rng, 8<<20)...)
	write(t, dir+"/a", data)
	write(t, dir+"/b", data[5<<20:])
	o := Options{Chunkers: []chunk.Config{{Name: chunk.FastCDC, Min: 256, Avg: 1024, Max: 4096}}, Codecs: []tiering.Codec{tiering.S2}}
	exact := run(t, o, dir).Results[0]
	o.Memory = 1200 * rowMemory
	r := run(t, o, dir).Results[0]
	if exact.SampledOneIn != 1 || r.SampledOneIn < 16 || r.Logical != exact.Logical || r.Uses != exact.Uses {
		t.Fatalf("%+v\n%+v", r, exact)
	}
	// At least 600 of the blocks are kept: a standard error of 4 %.
	for _, v := range [][2]int64{{r.Blocks, exact.Blocks}, {r.Unique, exact.Unique}, {r.Stored, exact.Stored}} {
		if off := math.Abs(float64(v[0])/float64(v[1]) - 1); off > 0.15 {
			t.Errorf("estimate %d of %d", v[0], v[1])
		}
	}
	if o.Memory = 1000; !errors.Is(second(Run(t.Context(), []string{dir}, o)), ErrOptions) {
		t.Error("too little memory was taken")
	}
}

func second(_ Report, err error) error { return err }

func TestSampleStaysBounded(t *testing.T) {
	b := newBlockSet(100)
	rng := rand.New(rand.NewPCG(5, 6))
	for range 10_000 {
		key := rng.Uint64()
		if b.add(key, 1) {
			b.set(key, sizes{raw: 1})
		}
		if len(b.sizes) > 100 {
			t.Fatalf("%d rows", len(b.sizes))
		}
	}
	for key, s := range b.sizes {
		if !b.sampled(key) || s.raw != 1 {
			t.Errorf("%x: %+v at level %d", key, s, b.level)
		}
	}
	if n := len(b.sizes) << b.level; n < 5000 || n > 20_000 {
		t.Errorf("estimated %d of 10,000", n)
	}
}

func TestWhatIsCounted(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(7, 8))
	write(t, dir+"/d/file", random(rng, 100_000))
	for i := range 3 {
		if err := os.Link(dir+"/d/file", fmt.Sprintf("%s/link%d", dir, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("d/file", dir+"/symlink"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(dir + "/sparse")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{1 << 30, 1 << 40} {
		if _, err := f.WriteAt(random(rng, 8192), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(2 << 40); err != nil {
		t.Fatal(err)
	}
	c := chunk.Default()
	o := Options{Chunkers: []chunk.Config{c}, Codecs: []tiering.Codec{tiering.S2}}
	r := run(t, o, dir, dir+"/d", dir+"/d/file", dir+"/symlink")
	want := Input{Files: 2, Directories: 2, Others: 1, Hardlinks: 3, Size: 2<<40 + 100_000, Holes: 2<<40 - 16384, Read: 116_384}
	if r.Input != want {
		t.Errorf("got  %+v\nwant %+v", r.Input, want)
	}
	if got := r.Results[0]; got.Logical != 116_384 || got.Unique != 116_384 {
		t.Errorf("%+v", got)
	}
	if r.Results[0].Chunker.Key != nil {
		t.Error("the key is in the report")
	}
}

func TestUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything") // the testscript simulate.txtar has a way
	}
	dir := t.TempDir()
	write(t, dir+"/good", []byte("good"))
	write(t, dir+"/bad", []byte("bad"))
	write(t, dir+"/baddir/file", []byte("bad"))
	for _, p := range []string{"/bad", "/baddir"} {
		if err := os.Chmod(dir+p, 0); err != nil {
			t.Fatal(err)
		}
	}
	defer os.Chmod(dir+"/baddir", 0o755)
	var skipped int
	o := Options{Chunkers: []chunk.Config{chunk.Default()}, Codecs: []tiering.Codec{tiering.S2}}
	o.Skip = func(path string, err error) {
		if skipped++; !errors.Is(err, fs.ErrPermission) {
			t.Error(path, err)
		}
	}
	if r := run(t, o, dir); skipped != 2 || r.Input.Skipped != 2 || r.Results[0].Logical != 4 {
		t.Errorf("%d skipped: %+v", skipped, r)
	}
}

func TestEnds(t *testing.T) {
	o := Options{Chunkers: []chunk.Config{chunk.Default()}, Codecs: []tiering.Codec{tiering.S2}}
	if _, err := Run(t.Context(), []string{t.TempDir() + "/missing"}, o); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, []string{t.TempDir()}, o); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Run(t.Context(), nil, Options{}); !errors.Is(err, ErrOptions) {
		t.Error(err)
	}
	o.Chunkers[0].Avg = 3
	if _, err := Run(t.Context(), nil, o); !errors.Is(err, chunk.ErrConfig) {
		t.Error(err)
	}
}

// TestIndexSize writes rows as long as the store's and looks at the tables that
// they end up in.
func TestIndexSize(t *testing.T) {
	dir := t.TempDir()
	d, err := db.Open(db.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(9, 10))
	const rows = 100_000
	for range rows {
		d.Set(append([]byte{'b'}, random(rng, 32)...), random(rng, 14))
	}
	d.Freeze()
	if err := d.Write(nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(dir + "/*/*.sst")
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, name := range tables {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		sum += st.Size()
	}
	if got := float64(sum) / rows; math.Abs(got-bytesPerRow) > 2 {
		t.Errorf("a row takes %.1f bytes, not %d", got, bytesPerRow)
	}
}
