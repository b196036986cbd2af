package chunk

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
)

// The official BLAKE3 test vectors for the inputs "" and 0x00, and for the
// latter in derive-key mode under the vectors' own context.
func TestSumIsBLAKE3(t *testing.T) {
	for in, want := range map[string]string{
		"":     "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
		"\x00": "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
	} {
		if got := Sum([]byte(in)).String(); got != want {
			t.Errorf("Sum(%q) = %s, want %s", in, got, want)
		}
	}
	context := "BLAKE3 2019-12-27 16:29:52 test vectors context"
	want := "b3e2e340a117a499c6cf2398a19ee0d29cca2bb7404c73063382693bf66cb06c"
	if got := SumVertex(context, []byte{0}).String(); got != want {
		t.Errorf("SumVertex = %s, want %s", got, want)
	}
}

func TestIDText(t *testing.T) {
	id := Sum([]byte("x"))
	back, err := ParseID(strings.ToUpper(id.String()))
	if err != nil || back != id {
		t.Errorf("ParseID: %v, %v", back, err)
	}
	if id.Short() != id.String()[:12] {
		t.Errorf("Short = %s", id.Short())
	}
	for _, bad := range []string{"", "00", id.String() + "0", strings.Repeat("g", 64), id.String()[:63] + " "} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) succeeded", bad)
		}
	}
	in := map[ID]ID{id: back}
	encoded, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out map[ID]ID
	if err := json.Unmarshal(encoded, &out); err != nil || out[id] != back {
		t.Errorf("%s became %v, %v", encoded, out, err)
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(Sum(nil).String())
	f.Add("zz")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseID(s); err == nil && id.String() != strings.ToLower(s) {
			t.Errorf("%q became %s", s, id)
		}
	})
}

func naiveEntropy(plain []byte) float64 {
	var counts [256]float64
	for _, b := range plain {
		counts[b]++
	}
	h := 0.0
	for _, c := range counts {
		if p := c / float64(len(plain)); p > 0 {
			h -= p * math.Log2(p)
		}
	}
	return h
}

// sampled returns the bytes that Entropy counts.
func sampled(data []byte) []byte {
	if len(data) <= 16<<10 {
		return data
	}
	var out []byte
	for ; len(data) >= 256; data = data[256:] {
		out = append(out, data[:64]...)
	}
	return out
}

func TestEntropy(t *testing.T) {
	if h := Entropy(nil); h != 0 {
		t.Errorf("of nothing: %v", h)
	}
	for _, n := range []int{1, 7, 8, 9, 255, 256, 1000, 65_536, 65_537} {
		for name, data := range map[string][]byte{"random": random(3, n), "text": text(3, n), "low": lowEntropy(3, n), "zero": make([]byte, n)} {
			if got, want := Entropy(data), naiveEntropy(sampled(data)); math.Abs(got-want) > 1e-9 {
				t.Errorf("%s, %d bytes: %v, want %v", name, n, got, want)
			}
			if got, want := Entropy(data), naiveEntropy(data); math.Abs(got-want) > 0.01 {
				t.Errorf("%s, %d bytes: %v is too far from %v of all bytes", name, n, got, want)
			}
		}
	}
}

func TestIsZero(t *testing.T) {
	for n := range 200 {
		data := make([]byte, n)
		if !IsZero(data) {
			t.Errorf("%d zeroes", n)
		}
		for i := range data {
			data[i] = 0x80
			if IsZero(data) {
				t.Errorf("%d bytes, not zero at %d", n, i)
			}
			data[i] = 0
		}
		for i := range data {
			data[i] = 7
		}
		if n > 0 && IsZero(data) {
			t.Errorf("%d sevens", n)
		}
	}
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(n>>10, "KiB"), func(b *testing.B) {
			data := random(1, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				Sum(data)
			}
		})
	}
}

func BenchmarkSumVertex(b *testing.B) {
	for _, n := range []int{64, 1024, 32 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := random(1, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				SumVertex("quarxfs 2025-01-01 benchmark vertex v1", data)
			}
		})
	}
}

func BenchmarkEntropy(b *testing.B) {
	for name, data := range map[string][]byte{"random": random(1, 64<<10), "text": text(1, 64<<10), "zero": make([]byte, 64<<10)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				Entropy(data)
			}
		})
	}
}

func BenchmarkIsZero(b *testing.B) {
	data := make([]byte, 64<<10)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		IsZero(data)
	}
}
