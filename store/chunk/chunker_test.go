package chunk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc"
)

func testKey(seed byte) []byte {
	return bytes.Repeat([]byte{seed, ^seed}, KeySize/2)
}

func random(seed uint64, n int) []byte {
	data := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	rand.NewChaCha8(key).Read(data)
	return data
}

func text(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	words := []string{"the", "block", "and", "of", "a", "store", "is\n", "cut", "where", "hash", "{", "}", "return", "err"}
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[rng.IntN(len(words))])
		b.WriteByte(' ')
	}
	return b.Bytes()[:n]
}

func lowEntropy(seed uint64, n int) []byte {
	data := random(seed, n)
	for i := range data {
		data[i] &= 3
	}
	return data
}

// cuts returns the lengths of all blocks of data.
func cuts(t testing.TB, c *Chunker, data []byte) []int {
	t.Helper()
	var lengths []int
	for off := 0; off < len(data); {
		n, final := c.Cut(int64(off), data[off:])
		if n <= 0 || n > c.Max() || n > len(data)-off {
			t.Fatalf("block of %d bytes at %d of %d", n, off, len(data))
		}
		if !final && n != len(data)-off {
			t.Fatalf("open cut of %d bytes at %d of %d", n, off, len(data))
		}
		lengths = append(lengths, n)
		off += n
	}
	return lengths
}

func libraryCuts(t testing.TB, config Config, data []byte) []int {
	t.Helper()
	opts := &chunkers.ChunkerOpts{MinSize: config.Min, NormalSize: config.Avg, MaxSize: config.Max, Key: config.Key}
	c, err := chunkers.NewChunker(config.Name, bytes.NewReader(data), opts)
	if err != nil {
		t.Fatal(err)
	}
	var lengths []int
	for {
		block, err := c.Next()
		if len(block) > 0 {
			lengths = append(lengths, len(block))
		}
		if errors.Is(err, io.EOF) {
			return lengths
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestCutsAreTheLibrarys(t *testing.T) {
	sizes := [][3]int{
		{64, 128, 256}, {64, 256, 4096}, {100, 1024, 5000}, {2 << 10, 8 << 10, 64 << 10},
		{4 << 10, 16 << 10, 64 << 10}, {16 << 10, 64 << 10, 256 << 10}, {100_000, 1 << 18, 600_000},
	}
	rng := rand.New(rand.NewPCG(1, 2))
	inputs := map[string][]byte{
		"random": random(1, 1<<20+rng.IntN(1000)), "zero": make([]byte, 600_001), "text": text(2, 1<<20),
		"low": lowEntropy(3, 1<<20), "mixed": slices.Concat(random(4, 77_777), make([]byte, 300_000), text(5, 99_999)),
	}
	for _, size := range sizes {
		for _, key := range [][]byte{nil, testKey(7), testKey(200)} {
			config := Config{Name: FastCDC, Min: size[0], Avg: size[1], Max: size[2], Key: key}
			c, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			for name, data := range inputs {
				if got, want := cuts(t, c, data), libraryCuts(t, config, data); !slices.Equal(got, want) {
					t.Errorf("%v keyed=%t %s: cuts differ", size, key != nil, name)
				}
			}
		}
	}
}

func TestCutsOfEveryShortLength(t *testing.T) {
	config := Config{Name: FastCDC, Min: 64, Avg: 128, Max: 256, Key: testKey(1)}
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	data := text(9, 700)
	for n := range len(data) {
		if got, want := cuts(t, c, data[:n]), libraryCuts(t, config, data[:n]); !slices.Equal(got, want) {
			t.Fatalf("%d bytes: %v, want %v", n, got, want)
		}
	}
}

// A final cut must not move when more bytes come; one that is not final is all
// there was.
func TestFinalCutsStay(t *testing.T) {
	c, err := New(Config{Name: FastCDC, Min: 64, Avg: 256, Max: 1024})
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(20) {
		data := random(seed, 1100)
		whole, final := c.Cut(0, data)
		if !final {
			t.Fatal("no final cut within Max")
		}
		for n := range len(data) {
			got, final := c.Cut(0, data[:n])
			if final != (n > whole || n >= c.Max()) {
				t.Fatalf("seed %d, %d bytes, cut at %d: final=%t", seed, n, whole, final)
			}
			if final && got != whole || !final && got != n {
				t.Fatalf("seed %d, %d bytes: cut at %d, want %d", seed, n, got, whole)
			}
		}
	}
}

func TestInsertionMovesFewCuts(t *testing.T) {
	c, err := New(Config{Name: FastCDC, Min: 1 << 10, Avg: 4 << 10, Max: 16 << 10, Key: testKey(3)})
	if err != nil {
		t.Fatal(err)
	}
	data := random(11, 1<<20)
	edited := slices.Concat(data[:500_000], []byte("inserted"), data[500_000:])
	known := map[ID]bool{}
	for off, rest := 0, data; len(rest) > 0; {
		n, _ := c.Cut(int64(off), rest)
		known[Sum(rest[:n])] = true
		rest = rest[n:]
	}
	fresh := 0
	for rest := edited; len(rest) > 0; {
		n, _ := c.Cut(0, rest)
		if !known[Sum(rest[:n])] {
			fresh++
		}
		rest = rest[n:]
	}
	if fresh == 0 || fresh > 8 {
		t.Errorf("%d new blocks after inserting 8 bytes", fresh)
	}
}

// These cuts are format: a store that cut elsewhere after an update would stop
// deduplicating against what it holds.
func TestGoldenCuts(t *testing.T) {
	key := testKey(42)
	golden := []struct {
		config Config
		data   []byte
		want   []int
	}{
		{Config{FastCDC, 16 << 10, 64 << 10, 256 << 10, nil}, random(100, 600_000), goldenDefault},
		{Config{FastCDC, 16 << 10, 64 << 10, 256 << 10, key}, random(100, 600_000), goldenKeyed},
		{Config{FastCDC, 2 << 10, 8 << 10, 64 << 10, nil}, text(100, 100_000), goldenText},
		{Config{FastCDC, 16 << 10, 64 << 10, 256 << 10, key}, make([]byte, 600_000), goldenZero},
	}
	for i, g := range golden {
		c, err := New(g.config)
		if err != nil {
			t.Fatal(err)
		}
		if got := cuts(t, c, g.data); !slices.Equal(got, g.want) {
			t.Errorf("golden %d: %#v, want %#v", i, got, g.want)
		}
	}
}

func TestFixedCutsOnTheGrid(t *testing.T) {
	c, err := New(Config{Name: Fixed, Avg: 4096, Min: 1, Max: 2, Key: testKey(1)})
	if err != nil {
		t.Fatal(err)
	}
	if c.Min() != 4096 || c.Avg() != 4096 || c.Max() != 4096 || c.Config().Key != nil {
		t.Errorf("config became %+v", c.Config())
	}
	data := make([]byte, 10_000)
	for _, tt := range []struct {
		off   int64
		n     int
		want  int
		final bool
	}{
		{0, 0, 0, false}, {0, 1, 1, false}, {0, 4095, 4095, false}, {0, 4096, 4096, true}, {0, 9000, 4096, true},
		{4096, 4096, 4096, true}, {100, 9000, 3996, true}, {100, 3996, 3996, true}, {100, 3995, 3995, false},
		{1<<40 + 4095, 5, 1, true},
	} {
		if n, final := c.Cut(tt.off, data[:tt.n]); n != tt.want || final != tt.final {
			t.Errorf("Cut(%d, %d bytes) = %d, %t; want %d, %t", tt.off, tt.n, n, final, tt.want, tt.final)
		}
	}
}

func TestNewRefusesBadConfigs(t *testing.T) {
	ok := Default()
	if c, err := New(ok); err != nil || !bytes.Equal(c.Config().Key, ok.Key) {
		t.Fatalf("default config: %v", err)
	}
	if bytes.Equal(ok.Key, Default().Key) {
		t.Error("two default keys are equal")
	}
	change := func(f func(*Config)) Config { c := Default(); f(&c); return c }
	for i, config := range []Config{
		{},
		change(func(c *Config) { c.Name = "fastcdc" }),
		change(func(c *Config) { c.Min = 63 }),
		change(func(c *Config) { c.Min = -1 }),
		change(func(c *Config) { c.Min = c.Avg }),
		change(func(c *Config) { c.Max = c.Avg }),
		change(func(c *Config) { c.Avg = 65_000 }),
		change(func(c *Config) { c.Max = MaxFastCDC + 1 }),
		change(func(c *Config) { c.Key = c.Key[:31] }),
		{Name: Fixed, Avg: 2048}, {Name: Fixed, Avg: 5000}, {Name: Fixed, Avg: 8 << 20},
	} {
		if _, err := New(config); !errors.Is(err, ErrConfig) {
			t.Errorf("config %d: %v", i, err)
		}
	}
}

func TestCutDoesNotAllocate(t *testing.T) {
	c, err := New(Default())
	if err != nil {
		t.Fatal(err)
	}
	data := random(1, 256<<10)
	if n := testing.AllocsPerRun(10, func() { c.Cut(0, data) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzCut(f *testing.F) {
	f.Add([]byte("hello"), byte(0))
	f.Add(random(1, 2000), byte(5))
	f.Add(make([]byte, 3000), byte(0))
	f.Fuzz(func(t *testing.T, data []byte, seed byte) {
		config := Config{Name: FastCDC, Min: 64, Avg: 256, Max: 1024}
		if seed != 0 {
			config.Key = testKey(seed)
		}
		c, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := cuts(t, c, data), libraryCuts(t, config, data); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

func BenchmarkCut(b *testing.B) {
	for name, data := range map[string][]byte{"random": random(1, 8<<20), "text": text(1, 8<<20), "zero": make([]byte, 8<<20)} {
		config := Default()
		config.Key = testKey(1)
		for _, config.Name = range []string{FastCDC, FastCDCTar} {
			b.Run(name+"/"+config.Name, func(b *testing.B) {
				c, err := New(config)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(data)))
				b.ReportAllocs()
				for b.Loop() {
					for rest := data; len(rest) > 0; {
						n, _ := c.Cut(int64(len(data)-len(rest)), rest)
						rest = rest[n:]
					}
				}
			})
		}
		b.Run(name+"/library", func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			opts := &chunkers.ChunkerOpts{MinSize: config.Min, NormalSize: config.Avg, MaxSize: config.Max, Key: config.Key}
			c, err := chunkers.NewChunker(FastCDC, bytes.NewReader(data), opts)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				c.Reset(bytes.NewReader(data))
				for {
					if _, err := c.Next(); errors.Is(err, io.EOF) {
						break
					}
				}
			}
		})
	}
}

func ExampleChunker_Cut() {
	c, err := New(Config{Name: Fixed, Avg: 4096})
	if err != nil {
		fmt.Println(err)
		return
	}
	n, final := c.Cut(1000, make([]byte, 8192))
	fmt.Println(n, final)
	// Output: 3096 true
}
