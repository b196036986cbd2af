// Command fsx does random things to one file in every way that the kernel
// offers and checks each byte against a copy in memory, as the program of that
// name has done to filesystems since 1991. On a difference it prints the operations that led
// there and exits with 1.
package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"time"
	"unsafe"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/tools/cli"
)

func main() { cli.Main(newCommand()) }

func newCommand() *cobra.Command {
	var n, size int
	var limit time.Duration
	var seed uint64
	cmd := &cobra.Command{
		Use:   "fsx [flags] FILE",
		Short: "Do random things to a file and check each byte",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			x := &exerciser{path: args[0], max: size, rnd: rand.New(rand.NewPCG(seed, 0)), counts: make(map[string]int)}
			if err := x.run(ctx, n); err != nil {
				for _, l := range x.log {
					fmt.Println(l)
				}
				return fmt.Errorf("seed %d, operation %d: %w", seed, x.done, err)
			}
			fmt.Printf("seed %d: %d operations and no difference: %v\n", seed, x.done, x.counts)
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&n, "ops", 10_000, "number of `operations`; 0: as many as --for allows")
	f.DurationVar(&limit, "for", time.Hour, "stop after this `duration`")
	f.Uint64Var(&seed, "seed", uint64(time.Now().UnixNano()), "`number` that decides the operations")
	f.IntVar(&size, "size", 4<<20, "largest file size in `bytes`")
	return cmd
}

type exerciser struct {
	path   string
	max    int
	rnd    *rand.Rand
	model  []byte
	fd     int // buffered
	direct int // O_DIRECT
	done   int
	log    []string
	counts map[string]int
}

func (x *exerciser) run(ctx context.Context, n int) error {
	if err := x.open(unix.O_CREAT | unix.O_TRUNC); err != nil {
		return err
	}
	defer x.close()
	for ; (n == 0 || x.done < n) && ctx.Err() == nil; x.done++ {
		op := operations[x.rnd.IntN(len(operations))]
		x.counts[op.name]++
		if err := op.do(x); err != nil {
			return fmt.Errorf("%s: %w", op.name, err)
		}
	}
	// Opened once more at the end: what a descriptor still had must not be what makes it right.
	x.close()
	if err := x.open(0); err != nil {
		return err
	}
	return x.check(x.fd, 0, len(x.model))
}

func (x *exerciser) open(flags int) (err error) {
	if x.fd, err = unix.Open(x.path, unix.O_RDWR|flags, 0o644); err != nil {
		return err
	}
	x.direct, err = unix.Open(x.path, unix.O_RDWR|unix.O_DIRECT, 0)
	return err
}

func (x *exerciser) close() {
	_ = unix.Close(x.fd)
	_ = unix.Close(x.direct)
}

var operations = []struct {
	name string
	do   func(*exerciser) error
}{
	{"read", func(x *exerciser) error { return x.read(x.fd, 1) }},
	{"read", func(x *exerciser) error { return x.read(x.fd, 1) }},
	{"direct read", func(x *exerciser) error { return x.read(x.direct, 4096) }},
	{"write", func(x *exerciser) error { return x.write(x.fd, 1) }},
	{"write", func(x *exerciser) error { return x.write(x.fd, 1) }},
	{"direct write", func(x *exerciser) error { return x.write(x.direct, 4096) }},
	{"append", (*exerciser).appendData},
	{"map read", func(x *exerciser) error { return x.mapped(false) }},
	{"map write", func(x *exerciser) error { return x.mapped(true) }},
	{"truncate", (*exerciser).truncate},
	{"punch", func(x *exerciser) error {
		return x.fallocate("punch", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE)
	}},
	{"zero", func(x *exerciser) error { return x.fallocate("zero", unix.FALLOC_FL_ZERO_RANGE) }},
	{"zero", func(x *exerciser) error {
		return x.fallocate("zero keep", unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE)
	}},
	{"allocate", func(x *exerciser) error { return x.fallocate("allocate", 0) }},
	{"copy range", (*exerciser).copyRange},
	{"copy range", (*exerciser).copyRange},
	{"holes", (*exerciser).holes},
	{"sync", (*exerciser).sync},
	{"reopen", (*exerciser).reopen},
	{"drop cache", (*exerciser).dropCache},
	{"stat", (*exerciser).stat},
}

func (x *exerciser) note(format string, v ...any) {
	// The last sixty lead to most faults; all of a long run would be millions.
	if len(x.log) == 60 {
		x.log = x.log[1:]
	}
	x.log = append(x.log, fmt.Sprintf("%6d ", x.done)+fmt.Sprintf(format, v...))
}

// span draws a range that starts within limit; it is mostly short.
func (x *exerciser) span(limit, align int) (off, n int) {
	if limit <= 0 {
		limit = 1
	}
	off = x.rnd.IntN(limit)
	// The power is drawn first: bytes and half megabytes come equally often.
	n = 1 + x.rnd.IntN(1<<(1+x.rnd.IntN(19)))
	if x.rnd.IntN(3) == 0 {
		align = max(align, 4096)
	}
	off = off / align * align
	n = (n + align - 1) / align * align
	// Align once more after cutting, or direct I/O would refuse it.
	if off+n > x.max {
		n = max(align, (x.max-off)/align*align)
	}
	return off, n
}

func aligned(n int) []byte {
	b := make([]byte, n+4096)
	off := int(-uintptr(unsafe.Pointer(&b[0])) & 4095)
	return b[off : off+n]
}

func (x *exerciser) check(fd, off, n int) error {
	got := aligned(n)
	k, err := unix.Pread(fd, got, int64(off))
	if err != nil {
		return err
	}
	want := x.model[min(off, len(x.model)):min(off+n, len(x.model))]
	if k != len(want) {
		return fmt.Errorf("read %d bytes at %d, want %d", k, off, len(want))
	}
	return differ(got[:k], want, off)
}

func differ(got, want []byte, off int) error {
	if bytes.Equal(got, want) {
		return nil
	}
	first, last := -1, 0
	for i := range want {
		if got[i] != want[i] {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	return fmt.Errorf("bytes differ from %#x to %#x: %02x, want %02x", off+first, off+last,
		got[first:min(first+8, len(got))], want[first:min(first+8, len(want))])
}

func (x *exerciser) read(fd, align int) error {
	off, n := x.span(len(x.model)+10000, align)
	x.note("read %#x +%#x align %d", off, n, align)
	return x.check(fd, off, n)
}

func (x *exerciser) grow(to int) {
	if to > len(x.model) {
		x.model = append(x.model, make([]byte, to-len(x.model))...)
	}
}

func (x *exerciser) fill(b []byte) {
	// Zeroes and what compresses in two of eight cases, as the store keeps both in other ways.
	switch x.rnd.IntN(8) {
	case 0:
		clear(b)
	case 1:
		for i := range b {
			b[i] = byte(i / 100)
		}
	default:
		for i := 0; i < len(b); i++ {
			if i%8 == 0 {
				v := x.rnd.Uint64()
				for k := i; k < min(i+8, len(b)); k++ {
					b[k] = byte(v >> (8 * (k - i)))
				}
			}
		}
	}
}

func (x *exerciser) write(fd, align int) error {
	off, n := x.span(x.max, align)
	b := aligned(n)
	x.fill(b)
	x.note("write %#x +%#x align %d", off, n, align)
	return x.put(fd, b, off)
}

func (x *exerciser) put(fd int, b []byte, off int) error {
	if k, err := unix.Pwrite(fd, b, int64(off)); err != nil || k != len(b) {
		return fmt.Errorf("wrote %d of %d: %v", k, len(b), err)
	}
	// The model follows only what has succeeded.
	x.grow(off + len(b))
	copy(x.model[off:], b)
	return nil
}

func (x *exerciser) appendData() error {
	b := make([]byte, 1+x.rnd.IntN(10000))
	if len(x.model)+len(b) > x.max {
		return nil
	}
	x.fill(b)
	x.note("append %#x", len(b))
	// A descriptor of its own, since O_APPEND would make the other writes append as well.
	fd, err := unix.Open(x.path, unix.O_WRONLY|unix.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return x.put(fd, b, len(x.model))
}

func (x *exerciser) mapped(write bool) error {
	off, n := x.span(len(x.model), 1)
	n = min(n, len(x.model)-off)
	if n <= 0 {
		return nil
	}
	// Mappings begin at a page; the bytes before off are mapped and not looked at.
	start := off &^ 4095
	m, err := unix.Mmap(x.fd, int64(start), n+off-start, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	x.note("map %#x +%#x write %v", off, n, write)
	if write {
		// The model first and the mapping from it: a fault in the mapping cannot spoil the model.
		x.fill(x.model[off : off+n])
		copy(m[off-start:], x.model[off:off+n])
	}
	err = differ(m[off-start:], x.model[off:off+n], off)
	// Without msync in one half: then unmapping, fsync or the kernel brings the pages out.
	if write && err == nil && x.rnd.IntN(2) == 0 {
		err = unix.Msync(m, unix.MS_SYNC)
	}
	if e := unix.Munmap(m); err == nil {
		err = e
	}
	return err
}

func (x *exerciser) truncate() error {
	to := x.rnd.IntN(x.max)
	x.note("truncate %#x from %#x", to, len(x.model))
	if err := unix.Ftruncate(x.fd, int64(to)); err != nil {
		return err
	}
	x.grow(to)
	// The capacity stays, and what grows into it later must be zeroes.
	clear(x.model[to:])
	x.model = x.model[:to]
	return nil
}

func (x *exerciser) fallocate(name string, mode uint32) error {
	off, n := x.span(x.max, 1)
	x.note("%s %#x +%#x", name, off, n)
	if err := unix.Fallocate(x.fd, mode, int64(off), int64(n)); err != nil {
		return err
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		x.grow(off + n)
	}
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		clear(x.model[min(off, len(x.model)):min(off+n, len(x.model))])
	}
	return nil
}

func (x *exerciser) copyRange() error {
	from, n := x.span(len(x.model), 1)
	to := x.rnd.IntN(x.max)
	if x.rnd.IntN(2) == 0 {
		to &^= 4095
	}
	n = min(n, len(x.model)-from, x.max-to)
	// Overlapping ranges in one file are refused; posixcases looks at that.
	if n <= 0 || from < to+n && to < from+n {
		return nil
	}
	x.note("copy %#x +%#x to %#x", from, n, to)
	// A short copy is right as long as it goes on.
	for n > 0 {
		a, b := int64(from), int64(to)
		k, err := unix.CopyFileRange(x.fd, &a, x.fd, &b, n, 0)
		if err != nil || k == 0 {
			return fmt.Errorf("copied %d of %d: %v", k, n, err)
		}
		x.grow(to + k)
		copy(x.model[to:to+k], x.model[from:from+k])
		from, to, n = from+k, to+k, n-k
	}
	return nil
}

// holes walks the file by SEEK_DATA and SEEK_HOLE: what is called a hole must
// be zeroes.
func (x *exerciser) holes() error {
	x.note("holes")
	for at := 0; at < len(x.model); {
		data, err := unix.Seek(x.fd, int64(at), unix.SEEK_DATA)
		// No more data: the rest is one hole.
		if err == unix.ENXIO {
			data = int64(len(x.model))
		} else if err != nil {
			return err
		}
		if i := bytes.IndexFunc(x.model[at:data], func(r rune) bool { return r != 0 }); i >= 0 {
			return fmt.Errorf("a hole from %#x to %#x is reported over data at %#x", at, data, at+i)
		}
		if int(data) == len(x.model) {
			return nil
		}
		hole, err := unix.Seek(x.fd, data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		// A hole that does not lie behind the data would send cp round for ever.
		if hole <= data || int(hole) > len(x.model) {
			return fmt.Errorf("hole at %#x after data at %#x, size %#x", hole, data, len(x.model))
		}
		at = int(hole)
	}
	return nil
}

func (x *exerciser) sync() error {
	x.note("sync")
	return unix.Fsync(x.fd)
}

func (x *exerciser) reopen() error {
	x.note("reopen")
	x.close()
	return x.open(0)
}

func (x *exerciser) dropCache() error {
	x.note("drop cache")
	// In the other half dirty pages stay, and only clean ones go.
	if x.rnd.IntN(2) == 0 {
		if err := unix.Fdatasync(x.fd); err != nil {
			return err
		}
	}
	return unix.Fadvise(x.fd, 0, 0, unix.FADV_DONTNEED)
}

func (x *exerciser) stat() error {
	x.note("stat")
	var st unix.Stat_t
	if err := unix.Fstat(x.fd, &st); err != nil {
		return err
	}
	if st.Size != int64(len(x.model)) {
		return fmt.Errorf("size %#x, want %#x", st.Size, len(x.model))
	}
	return nil
}
