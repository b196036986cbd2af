package volume

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/fs/meta"
	"github.com/quarxtor/quarxfs/store"
)

func BenchmarkLookup(b *testing.B) {
	r := newRig(b, b.TempDir(), smallCDC(), Options{})
	defer r.close(b)
	const files = 1000
	names := make([]string, files)
	for i := range names {
		names[i] = fmt.Sprintf("file-%04d", i)
		if _, err := r.v.Create(meta.Root, names[i], CreateOptions{Mode: syscall.S_IFREG | 0o644}); err != nil {
			b.Fatal(err)
		}
	}
	for _, w := range []struct{ what, suffix string }{{"known", ""}, {"missing", "x"}} {
		b.Run(w.what, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_, err := r.v.Lookup(meta.Root, names[i%files]+w.suffix)
				if (err == nil) != (w.suffix == "") {
					b.Fatal(err)
				}
			}
		})
	}
}

// A file written in requests of 1 MiB and made durable: first bytes that the
// store does not have, then the same again in another file.
func BenchmarkWriteAndSync(b *testing.B) {
	const request, size = 1 << 20, 64 << 20
	for _, w := range []struct {
		what string
		dup  bool
	}{{"new", false}, {"known", true}} {
		b.Run(w.what, func(b *testing.B) {
			r := newRig(b, b.TempDir(), store.DefaultConfig().Chunker, Options{})
			defer r.close(b)
			write := func(name string, data []byte) {
				a, err := r.v.Create(meta.Root, name, CreateOptions{Mode: syscall.S_IFREG | 0o644})
				for off := 0; err == nil && off < size; off += request {
					err = r.v.Write(a.Ino, int64(off), data[off:off+request], WriteMode{Cached: true})
				}
				if err == nil {
					err = r.v.Sync()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			data := noise(1, size)
			write("first", data)
			b.SetBytes(size)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if !w.dup {
					b.StopTimer()
					data = noise(uint64(2+i), size)
					b.StartTimer()
				}
				write(fmt.Sprint("again", i), data)
			}
		})
	}
}

// Pages all over a file that is stored already, a quarter of them, in the order in which the kernel
// writes them back, and made durable.
func BenchmarkRandomWrite(b *testing.B) {
	const page, size = 4 << 10, 64 << 20
	for _, share := range []int{16, 4, 2} {
		b.Run(fmt.Sprint("1 page in ", share), func(b *testing.B) {
			r := newRig(b, b.TempDir(), store.DefaultConfig().Chunker, Options{})
			defer r.close(b)
			var data []byte
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				a, err := r.v.Create(meta.Root, fmt.Sprint("file ", i), CreateOptions{Mode: syscall.S_IFREG | 0o644})
				data = noise(uint64(i), size)
				for off := 0; err == nil && off < size; off += 1 << 20 {
					err = r.v.Write(a.Ino, int64(off), data[off:off+1<<20], WriteMode{Cached: true})
				}
				if err == nil {
					err = r.v.Sync()
				}
				pages := rand.New(rand.NewPCG(uint64(i), 0)).Perm(size / page)[:size/page/share]
				slices.Sort(pages)
				b.StartTimer()
				for k, p := range pages {
					if err == nil {
						err = r.v.Write(a.Ino, int64(p)*page, data[k*page+1:][:page], WriteMode{Cached: true})
					}
				}
				if err == nil {
					err = r.v.SyncFile(a.Ino)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(size / int64(share))
		})
	}
}

// Several programs at once, each in a directory of its own: what they share shows in
// -mutexprofile, with -cpu 1,2,4,8.
func BenchmarkParallel(b *testing.B) {
	page := noise(1, 4<<10)
	for _, w := range []struct {
		what string
		do   func(v *Volume, dir, file meta.Ino, i int) error
	}{
		{"lookup", func(v *Volume, dir, _ meta.Ino, _ int) error {
			_, err := v.Lookup(dir, "file")
			return err
		}},
		{"create", func(v *Volume, dir, _ meta.Ino, i int) error {
			_, err := v.Create(dir, fmt.Sprint(i), CreateOptions{Mode: syscall.S_IFREG | 0o644})
			return err
		}},
		{"write", func(v *Volume, _, file meta.Ino, i int) error {
			return v.Write(file, int64(i%4096)<<12, page, WriteMode{Cached: true})
		}},
		{"read", func(v *Volume, _, file meta.Ino, i int) error {
			a, err := v.Read(context.Background(), file, int64(i%256)<<12, 4<<10)
			a.Done()
			return err
		}},
	} {
		b.Run(w.what, func(b *testing.B) {
			r := newRig(b, b.TempDir(), store.DefaultConfig().Chunker, Options{})
			defer r.close(b)
			var dirs atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				dir := mustCreate(b, r.v, meta.Root, fmt.Sprint("dir ", dirs.Add(1)), syscall.S_IFDIR|0o755)
				file := mustCreate(b, r.v, dir, "file", syscall.S_IFREG|0o644)
				mustWrite(b, r.v, file, 0, noise(uint64(file), 1<<20))
				for i := 0; pb.Next(); i++ {
					if err := w.do(r.v, dir, file, i); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
