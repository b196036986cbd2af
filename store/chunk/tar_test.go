package chunk

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// A member of a test's archive.
type member struct {
	tar.Header
	data []byte
}

func file(name string, data []byte) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(1700000000, 0)}, data}
}

func archive(t testing.TB, format tar.Format, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		m.Format = format
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tree is members as a source tree has them: directories, links, empty, short and long files.
func tree(seed uint64) []member {
	rng := rand.New(rand.NewPCG(seed, 9))
	var all []member
	for d := range 4 {
		dir := fmt.Sprintf("dir%d/", d)
		all = append(all, member{Header: tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1700000000, 0)}})
		for f := range 12 {
			n := []int{0, 1, 511, 512, 513, 3000, 9000, 20_000, 60_000}[rng.IntN(9)]
			all = append(all, file(fmt.Sprintf("%sfile%d", dir, f), text(seed*100+uint64(d*12+f), n)))
		}
		all = append(all, member{Header: tar.Header{Name: dir + "link", Typeflag: tar.TypeSymlink, Linkname: "file1", ModTime: time.Unix(1700000000, 0)}})
	}
	return all
}

func tarChunker(t testing.TB) *Chunker {
	t.Helper()
	c, err := New(Config{Name: FastCDCTar, Min: 1 << 10, Avg: 4 << 10, Max: 16 << 10, Key: testKey(5)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// blocksOf cuts data that begins at off, and gives no more than Window bytes at a time.
func blocksOf(t testing.TB, c *Chunker, off int64, data []byte) [][]byte {
	t.Helper()
	var blocks [][]byte
	for len(data) > 0 {
		seen := data[:min(len(data), c.Window())]
		n, final := c.Cut(off, seen)
		whole, _ := c.Cut(off, data)
		if n <= 0 || n > c.Max() || n > len(seen) || n != whole || !final && len(seen) == c.Window() {
			t.Fatalf("at %d: %d bytes, final %t, of %d; %d with all", off, n, final, len(seen), whole)
		}
		blocks = append(blocks, data[:n])
		data, off = data[n:], off+int64(n)
	}
	return blocks
}

// A member has the blocks that the file has by itself, in every kind of archive, also if it begins
// anywhere in a file, is in an archive in an archive, or behind another archive. Only the very last
// one may have the archive's end in its last block, and here is a link.
func TestMembersHaveTheirFilesBlocks(t *testing.T) {
	c := tarChunker(t)
	members := tree(1)
	long := tree(2)
	for i := range long {
		if long[i].Typeflag != tar.TypeSymlink {
			long[i].Name = strings.Repeat("a-directory-with-a-long-name/", 9) + long[i].Name
		}
	}
	plain := archive(t, tar.FormatUSTAR, members...)
	damaged := bytes.Clone(plain)
	copy(damaged[tarChecksum:], "garbage!") // the first header; it is as any other bytes
	for name, a := range map[string]struct {
		members []member
		bytes   []byte
	}{
		"ustar":                {members, plain},
		"GNU":                  {members, archive(t, tar.FormatGNU, members...)},
		"pax":                  {members, archive(t, tar.FormatPAX, members...)},
		"long names, GNU":      {long, archive(t, tar.FormatGNU, long...)},
		"long names, pax":      {long, archive(t, tar.FormatPAX, long...)},
		"two":                  {members, slices.Concat(plain, plain)},
		"in an archive":        {members, archive(t, tar.FormatUSTAR, file("inner.tar", plain), file("more", nil))},
		"behind other sectors": {members, slices.Concat(random(3, 77*sector), plain)},
		"cut off":              {members[:20], plain[:len(plain)-100_000]},
		"damaged header":       {members[1:], damaged},
	} {
		t.Run(name, func(t *testing.T) {
			known := make(map[ID]bool)
			for _, b := range blocksOf(t, c, 0, a.bytes) {
				known[Sum(b)] = true
			}
			for _, m := range a.members {
				for _, b := range blocksOf(t, c, 0, m.data) {
					if !known[Sum(b)] && len(b) >= c.least() { // else with a header
						t.Errorf("%s: a block of %d of its %d bytes is not in the archive", m.Name, len(b), len(m.data))
					}
				}
			}
		})
	}
}

// Other times in all headers cost no more than the headers.
func TestOtherHeadersAreCheap(t *testing.T) {
	c := tarChunker(t)
	members := tree(3)
	known := make(map[ID]bool)
	for _, b := range blocksOf(t, c, 0, archive(t, tar.FormatPAX, members...)) {
		known[Sum(b)] = true
	}
	for i := range members {
		members[i].ModTime = time.Unix(1800000000, 500)
	}
	fresh := 0
	for _, b := range blocksOf(t, c, 0, archive(t, tar.FormatPAX, members...)) {
		if !known[Sum(b)] {
			fresh += len(b)
		}
	}
	// For a time in nanoseconds pax writes a header and its record before the file's own header.
	if most := len(members)*4*sector + 3*sector; fresh > most {
		t.Errorf("%d new bytes for %d headers, more than %d", fresh, len(members), most)
	}
}

// However headers lie, a page of extents, which is 64 times Avg, has no more than 8192 blocks.
func TestHostileHeaders(t *testing.T) {
	header := func(size int64) []byte { return archive(t, tar.FormatUSTAR, file("x", make([]byte, size)))[:sector] }
	rng := rand.New(rand.NewPCG(7, 7))
	for _, avg := range []int{4 << 10, 64 << 10, 256 << 10, 4 << 20} {
		c, err := New(Config{Name: FastCDCTar, Min: avg / 4, Avg: avg, Max: 4 * avg})
		if err != nil {
			t.Fatal(err)
		}
		least := int64(c.least())
		empty, lies, short := header(0), [][]byte{header(1), header(least - 1), header(least), header(least + 1), header(8 * least)}, header(1)
		for name, next := range map[string]func(int) []byte{
			"tiny members":   func(i int) []byte { return [][]byte{short, append([]byte{1}, make([]byte, sector-1)...)}[i%2] },
			"only headers":   func(int) []byte { return empty },
			"lies":           func(i int) []byte { return lies[i%len(lies)] },
			"headers, bytes": func(i int) []byte { return [][]byte{lies[4], random(uint64(i), sector)}[i%2] },
			"least members": func(i int) []byte {
				return append(slices.Clone(lies[2]), random(uint64(i), max(int(least), sector))...)
			},
			"a random choice": func(i int) []byte {
				return append(slices.Clone(lies[rng.IntN(5)]), random(uint64(i), sector*rng.IntN(3))...)
			},
		} {
			var b bytes.Buffer
			for i := 0; b.Len() < min(64*avg, 8<<20); i++ {
				b.Write(next(i))
			}
			blocks := int64(len(blocksOf(t, c, 0, b.Bytes())))
			if most := 8192*int64(b.Len())/int64(64*avg) + 2; blocks > most {
				t.Errorf("avg %d, %s: %d bytes are %d blocks, more than %d", avg, name, b.Len(), blocks, most)
			}
		}
	}
}

// Without a header it is FastCDC.
func TestCutsWithoutHeaders(t *testing.T) {
	for _, size := range [][3]int{{1 << 10, 4 << 10, 16 << 10}, {16 << 10, 64 << 10, 256 << 10}} {
		config := Config{Name: FastCDC, Min: size[0], Avg: size[1], Max: size[2], Key: testKey(5)}
		plain, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		config.Name = FastCDCTar
		c, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{"random": random(8, 1<<20+77), "text": text(8, 1<<20), "zero": make([]byte, 1<<20)} {
			if got, want := cuts(t, c, data), cuts(t, plain, data); !slices.Equal(got, want) {
				t.Errorf("%v, %s: cuts differ", size, name)
			}
		}
	}
}

// A final cut stays whatever comes behind, for each length of what is seen.
func TestFinalCutsOfArchivesStay(t *testing.T) {
	c := tarChunker(t)
	data := archive(t, tar.FormatPAX, tree(4)...)
	rng := rand.New(rand.NewPCG(4, 4))
	for off := 0; off < len(data); {
		rest := data[off:]
		want, _ := c.Cut(int64(off), rest[:min(len(rest), c.Window())])
		for range 10 {
			n := rng.IntN(min(len(rest), c.Window()) + 1)
			if got, final := c.Cut(int64(off), rest[:n]); final && got != want || got > n {
				t.Fatalf("at %d with %d bytes seen: %d, final %t; want %d", off, n, got, final, want)
			}
			other := slices.Concat(rest[:n], random(uint64(n), 2*sector))
			before, final := c.Cut(int64(off), rest[:n])
			if after, _ := c.Cut(int64(off), other); final && after != before {
				t.Fatalf("at %d: %d of %d bytes, %d with others behind", off, before, n, after)
			}
		}
		off += want
	}
}

// These cuts are format, as those of TestGoldenCuts.
func TestGoldenCutsOfArchive(t *testing.T) {
	c, err := New(Config{FastCDCTar, 16 << 10, 64 << 10, 256 << 10, testKey(42)})
	if err != nil {
		t.Fatal(err)
	}
	data := archive(t, tar.FormatPAX,
		member{Header: tar.Header{Name: "d/", Typeflag: tar.TypeDir, ModTime: time.Unix(1700000000, 0)}},
		file("d/empty", nil), file("d/short", text(1, 700)),
		file(strings.Repeat("long/", 60)+"file", random(2, 100_000)), file("d/last", text(3, 1000)))
	if got := cuts(t, c, data); !slices.Equal(got, goldenArchive) {
		t.Errorf("%#v, want %#v", got, goldenArchive)
	}
}

// Whatever the bytes, all of them are in blocks, and no block is longer than may be.
func FuzzCutTar(f *testing.F) {
	a := archive(f, tar.FormatPAX, tree(5)...)
	f.Add(a[:20_000], uint16(0), byte(0), int64(0))
	f.Add(a[:5000], uint16(700), byte('x'), int64(1))
	f.Add(bytes.Repeat(a[:sector], 40), uint16(124), byte('7'), int64(512))
	f.Fuzz(func(t *testing.T, data []byte, at uint16, b byte, off int64) {
		if len(data) > 0 {
			data = bytes.Clone(data)
			data[int(at)%len(data)] = b
		}
		c := tarChunker(t)
		if got := bytes.Join(blocksOf(t, c, off&(1<<50-1), data), nil); !bytes.Equal(got, data) {
			t.Error("the blocks are not the data")
		}
	})
}

func BenchmarkCutArchive(b *testing.B) {
	data := archive(b, tar.FormatPAX, slices.Concat(tree(1), tree(2), tree(3))...)
	for _, name := range []string{FastCDC, FastCDCTar} {
		b.Run(name, func(b *testing.B) {
			config := Default()
			config.Name = name
			c, err := New(config)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				for off := 0; off < len(data); {
					n, _ := c.Cut(int64(off), data[off:])
					off += n
				}
			}
		})
	}
}

func ExampleConfig() {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "greeting", Mode: 0o644, Size: 5, Format: tar.FormatUSTAR})
	io.WriteString(w, "hello")
	w.WriteHeader(&tar.Header{Name: "empty", Mode: 0o644, Format: tar.FormatUSTAR})
	w.Close()
	c, err := New(Default())
	if err != nil {
		fmt.Println(err)
		return
	}
	data := b.Bytes()
	for off := 0; off < 1024; {
		n, _ := c.Cut(int64(off), data[off:])
		fmt.Println(off, n)
		off += n
	}
	// Output:
	// 0 1536
}
