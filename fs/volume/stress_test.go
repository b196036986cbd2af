package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/fs/meta"
)

// A striped test: every worker has its own stripes of the same files, so it
// knows what it must read there whatever the others do.
const (
	stripe  = 10_000 // deliberately no multiple of a page or a block
	stripes = 24
)

// TestStress lets writers, readers, punchers, copiers, renamers, commits and
// sweeps loose on the same files.
func TestStress(t *testing.T) {
	for _, conf := range []struct {
		name  string
		dirty int64
	}{{"short of memory", 128 << 10}, {"at ease", 16 << 20}} {
		t.Run(conf.name, func(t *testing.T) {
			o := tiny()
			o.DirtyBytes = conf.dirty
			r := testRig(t, smallCDC(), o)
			var files []meta.Ino
			for i := range 3 {
				files = append(files, mustCreate(t, r.v, meta.Root, fmt.Sprint("file", i), 0o100644))
			}
			const workers = 4
			ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
			defer cancel()
			var all sync.WaitGroup
			expected := make([][][]byte, workers)
			for w := range workers {
				all.Go(func() { expected[w] = stripesOf(ctx, t, r.v, files, w, workers) })
			}
			all.Go(func() { churnNames(ctx, t, r.v) })
			all.Go(func() { churnFiles(ctx, t, r.v, files) })
			all.Go(func() { commitAndSweep(ctx, t, r) })
			all.Wait()
			again := func() {
				for w := range workers {
					for i, want := range expected[w] {
						ino, off := files[i%len(files)], stripeOffset(i/len(files), w, workers)
						got := read(t, r.v, ino, off, len(want))
						if !bytes.Equal(got, want[:len(got)]) || len(bytes.Trim(want[len(got):], "\x00")) > 0 {
							t.Errorf("worker %d, stripe %d differs at the end", w, i)
						}
					}
				}
			}
			again()
			r.check(t)
			r.close(t)
			r.open(t)
			again()
		})
	}
}

func stripeOffset(i, worker, workers int) int64 { return int64((i*workers + worker) * stripe) }

// stripesOf changes and reads its stripes of the files and returns what it
// left in them.
func stripesOf(ctx context.Context, t *testing.T, v *Volume, files []meta.Ino, worker, workers int) [][]byte {
	rnd := rand.New(rand.NewPCG(uint64(worker), 1))
	want := make([][]byte, len(files)*stripes)
	for i := range want {
		want[i] = make([]byte, stripe)
	}
	for ctx.Err() == nil && !t.Failed() {
		i := rnd.IntN(len(want))
		ino, off := files[i%len(files)], stripeOffset(i/len(files), worker, workers)
		lo := rnd.IntN(stripe)
		hi := lo + 1 + rnd.IntN(stripe-lo)
		var err error
		switch rnd.IntN(8) {
		case 0:
			clear(want[i][lo:hi])
			err = v.Fallocate(ino, off+int64(lo), int64(hi-lo), unix.FALLOC_FL_ZERO_RANGE)
		case 1:
			// The whole of another stripe of this worker, shared.
			j := rnd.IntN(len(want))
			if j == i {
				continue
			}
			var n int64
			n, err = v.CopyRange(files[j%len(files)], stripeOffset(j/len(files), worker, workers), ino, off, stripe)
			copy(want[i][:n], want[j])
		case 2, 3, 4:
			p := noise(rnd.Uint64N(1<<20), hi-lo)
			copy(want[i][lo:], p)
			err = v.Write(ino, off+int64(lo), p, WriteMode{})
		default:
			a, rerr := v.Read(ctx, ino, off+int64(lo), hi-lo)
			got := bytes.Join(a.Slices, nil)
			a.Done() // what is used again too early differs below, in some other one
			if rerr == nil && (!bytes.Equal(got, want[i][lo:lo+len(got)]) || len(bytes.Trim(want[i][lo+len(got):hi], "\x00")) > 0) {
				t.Errorf("worker %d, stripe %d: bytes %d to %d differ", worker, i, lo, hi)
			}
			if ctx.Err() == nil {
				err = rerr
			}
		}
		if err != nil {
			t.Errorf("worker %d: %v", worker, err)
		}
	}
	return want
}

// churnNames makes, links, renames and removes files in directories, so that
// nodes come and go.
func churnNames(ctx context.Context, t *testing.T, v *Volume) {
	var all sync.WaitGroup
	var dirs []meta.Ino
	for i := range 2 {
		dirs = append(dirs, mustCreate(t, v, meta.Root, fmt.Sprint("dir", i), 0o40755))
	}
	for w := range 2 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 2))
			for ctx.Err() == nil {
				d, e := dirs[rnd.IntN(2)], dirs[rnd.IntN(2)]
				a, b := fmt.Sprint(rnd.IntN(20)), fmt.Sprint(rnd.IntN(20))
				var err error
				switch rnd.IntN(6) {
				case 0, 1:
					var at Attr
					at, err = v.Create(d, a, CreateOptions{Mode: 0o100644})
					if err == nil {
						err = v.Write(at.Ino, 0, noise(uint64(w), rnd.IntN(20000)+1), WriteMode{})
					}
				case 2:
					err = v.Unlink(d, a)
				case 3:
					err = v.Rename(d, a, e, b, uint32(rnd.IntN(3)))
				case 4:
					var at Attr
					if at, err = v.Lookup(d, a); err == nil {
						_, err = v.Link(at.Ino, e, b)
					}
				case 5:
					err = v.Walk(meta.Root, "", func(string, Attr) error { return nil })
				}
				switch errnoOf(err) {
				case 0, syscall.ENOENT, syscall.EEXIST:
				default:
					t.Errorf("names: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
}

// churnFiles writes, truncates and copies beyond the stripes, and makes files
// that are unlinked while in use.
func churnFiles(ctx context.Context, t *testing.T, v *Volume, files []meta.Ino) {
	rnd := rand.New(rand.NewPCG(9, 9))
	for ctx.Err() == nil && !t.Failed() {
		a, err := v.CreateNameless(meta.Root, CreateOptions{Mode: 0o100600})
		if err != nil {
			t.Error(err)
			return
		}
		p := noise(rnd.Uint64N(100), 1+rnd.IntN(300_000))
		size := rnd.Int64N(int64(len(p)))
		_, cerr := v.CopyRange(files[0], 0, a.Ino, size, stripe*stripes)
		err = errors.Join(
			v.Write(a.Ino, 0, p, WriteMode{}), cerr, truncate(v, a.Ino, size),
		)
		if err != nil {
			t.Error(err)
		}
		if got := read(t, v, a.Ino, 0, len(p)); !bytes.Equal(got, p[:size]) {
			t.Errorf("a nameless file differs")
		}
		v.Forget(a.Ino, 1)
	}
}

// commitAndSweep commits and sweeps all the time.
func commitAndSweep(ctx context.Context, t *testing.T, r *rig) {
	for i := 0; ctx.Err() == nil; i++ {
		err := r.v.Sync()
		if i%4 == 3 {
			_, err = r.st.Sweep(context.Background())
		}
		if err != nil {
			t.Error(err)
			return
		}
		r.clock.advance(3 * time.Second)
		time.Sleep(5 * time.Millisecond)
	}
}

// TestSynced: what Sync returned for is there in a copy taken at once, while
// others go on writing.
func TestSynced(t *testing.T) {
	r := testRig(t, smallCDC(), tiny())
	const workers = 3
	var round atomic.Int64
	var acknowledged [workers]int64
	var inos [workers]meta.Ino
	for w := range workers {
		inos[w] = mustCreate(t, r.v, meta.Root, fmt.Sprint(w), 0o100644)
	}
	for range 4 {
		var all sync.WaitGroup
		for w := range workers {
			all.Go(func() {
				for range 5 {
					n := round.Add(1)
					mustWrite(t, r.v, inos[w], 0, noise(uint64(n), 9000))
					mustSync(t, r.v)
					acknowledged[w] = n
				}
			})
		}
		all.Wait()
		for w := range workers { // not synced: must not be there
			mustWrite(t, r.v, inos[w], 0, noise(0, 9000))
		}
		dir := t.TempDir() + "/copy"
		if err := copyStore(r.dir, dir); err != nil {
			t.Fatal(err)
		}
		c := &rig{dir: dir, clock: r.clock, options: r.options}
		c.open(t)
		for w := range workers {
			if !bytes.Equal(read(t, c.v, inos[w], 0, 10000), noise(uint64(acknowledged[w]), 9000)) {
				t.Errorf("worker %d: what was synced is not there", w)
			}
		}
		c.check(t)
		c.close(t)
	}
}
