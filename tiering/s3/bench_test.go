package s3_test

import (
	"context"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/s3/s3test"
)

// BenchmarkSequentialRead reads 256 MiB in blocks of 64 KiB, in order, from a
// server that takes 20 ms for each request.
func BenchmarkSequentialRead(b *testing.B) {
	const blocks, size = 4096, 64 << 10
	server := s3test.Start(b)
	p := s3test.NewProxy(b, server.URL)
	id := "000102030405060708090a0b0c0d0e0f"
	spool := filepath.Join(b.TempDir(), "spool")
	if err := tiering.MakeCold(newFS(b, p.URL, spool), bucketURL, id); err != nil {
		b.Fatal(err)
	}
	s, err := tiering.Open(tiering.Options{HotDir: filepath.Join(b.TempDir(), "hot"), CacheBytes: 64 << 20, Cold: &tiering.ColdOptions{
		Dir: bucketURL, ID: id, Connect: func() (disk.FS, error) { return newFS(b, p.URL, spool), nil },
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var ids [][32]byte
	var locs []tiering.Location
	for i := range blocks {
		plain := noise(uint64(i), size)
		r := tiering.Record{ID: blake3.Sum256(plain), Kind: tiering.Data, Codec: tiering.Raw, RawLen: size, Payload: plain}
		loc, err := s.AppendTo(tiering.Cold, r)
		if err != nil {
			b.Fatal(err)
		}
		ids, locs = append(ids, r.ID), append(locs, loc)
	}
	if n, ok := s.Active(tiering.Cold); ok {
		if err := s.Seal(context.Background(), n); err != nil {
			b.Fatal(err)
		}
	}
	p.Set(func(*http.Request) s3test.Fault { return s3test.Fault{Delay: 20 * time.Millisecond} })
	b.SetBytes(blocks * size)
	for b.Loop() {
		for i, id := range ids {
			if _, err := s.Get(context.Background(), id, locs[i]); err != nil {
				b.Fatal(err)
			}
		}
	}
}
