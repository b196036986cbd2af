// Command scale fills stores step by step and measures at each size what one
// operation costs. Costs must not grow with the store; memory is published per
// million files and blocks. It uses the store and the volume as a library, with the
// settings of `quarxfs mount`; what a request costs on its way from the kernel
// is tools/bench/fs's to measure.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/tools/cli"
)

func main() { cli.Main(newCommand()) }

type options struct {
	work   string
	perDir int
	bytes  int
	seed   uint64
	ops    int
	memory int64 // MiB
	keep   bool
	json   bool
	prof   string
}

func newCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "scale",
		Short: "Measure what operations cost as a store grows",
		Long: `Fill a store step by step and measure at each size what operations cost: warm,
and (as root) after the kernel's caches were dropped. "reads" are the bytes read from the
disk for each operation.`,
	}
	f := cmd.PersistentFlags()
	f.StringVar(&o.work, "work", "/var/tmp/quarxfs-scale", "`directory` for the store, which is removed at the end")
	f.Uint64Var(&o.seed, "seed", 1, "seed of names and bytes")
	f.IntVar(&o.ops, "ops", 20000, "operations of each kind to measure")
	f.Int64Var(&o.memory, "memory", 256, "`MiB`, as of quarxfs mount --memory")
	f.BoolVar(&o.keep, "keep", false, "leave the store there, and go on with one that is")
	f.StringVar(&o.prof, "cpuprofile", "", "write a CPU profile of it all to a `file`")
	f.BoolVar(&o.json, "json", false, "print JSON lines")

	blocks := &cobra.Command{
		Use:   "blocks [COUNT...]",
		Short: "fill the index with blocks of 16 bytes, to 1, 10 and 50 million",
		Long: `Fill the index with blocks of 16 bytes; it is their rows that count. 50 million
take some 8 GiB of disk.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd, args, []int{1e6, 10e6, 50e6}, o.runBlocks)
		},
	}
	files := &cobra.Command{
		Use:   "files [COUNT...]",
		Short: "fill the volume with files, to 10,000, 100,000 and 1,000,000",
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd, args, []int{1e4, 1e5, 1e6}, o.runFiles)
		},
	}
	files.Flags().IntVar(&o.perDir, "per-dir", 1000, "files in a directory; 0 for all in one")
	files.Flags().IntVar(&o.bytes, "bytes", 0, "random `bytes` in each file")
	cmd.AddCommand(blocks, files)
	return cmd
}

func (o *options) run(cmd *cobra.Command, args []string, sizes []int, fill func(context.Context, string, []int, *report) error) error {
	if len(args) > 0 {
		sizes = nil
	}
	for _, arg := range args {
		n, err := strconv.Atoi(arg)
		// Sizes only grow, as the store is filled on from the one before.
		if err != nil || n <= 0 || len(sizes) > 0 && n < sizes[len(sizes)-1] {
			return fmt.Errorf("%q is not a count, or less than the one before", arg)
		}
		sizes = append(sizes, n)
	}
	// As the daemon sets it, or memory would not be what a mount takes.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(o.memory << 20)
	if o.prof != "" {
		p, err := os.Create(o.prof)
		if err != nil {
			return err
		}
		defer p.Close()
		if err := pprof.StartCPUProfile(p); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	return o.within(cmd.Name(), func(dir string) error {
		return fill(cmd.Context(), dir, sizes, &report{out: cmd.OutOrStdout(), json: o.json})
	})
}

func (o *options) within(name string, fn func(dir string) error) error {
	dir := filepath.Join(o.work, name)
	if o.keep {
		// A store that is there is gone on with, which saves hours of filling.
		if _, err := store.ReadConfig(dir); err == nil {
			return fn(dir)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.work, 0o700); err != nil {
		return err
	}
	if err := store.Init(dir, store.DefaultConfig()); err != nil {
		return err
	}
	err := fn(dir)
	// Also after a failure: fifty million rows are too many to leave about.
	if !o.keep {
		_ = os.RemoveAll(dir)
	}
	return err
}

// open opens a store as the daemon does (cmd/quarxfs/internal/daemon/budget.go).
func (o *options) open(dir string) (*store.Store, error) {
	total := o.memory << 20
	return store.Open(dir, store.Options{
		CacheBytes: total / 4, MemTable: min(total/8, 64<<20), SweepInterval: -1,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
}

// A row is one line of the report.
type row struct {
	Of    string  `json:"of"`   // blocks or files
	Size  int     `json:"size"` // how many the store has
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	CPU   float64 `json:"cpu_us_per_op"`
	Reads float64 `json:"bytes_read_per_op"`
}

type report struct {
	out  interface{ Write([]byte) (int, error) }
	json bool
}

func (r *report) add(w row) {
	if r.json {
		_ = json.NewEncoder(r.out).Encode(w)
		return
	}
	fmt.Fprintf(r.out, "%-7s %10d  %-34s %10.2f %-4s", w.Of, w.Size, w.What, w.Value, w.Unit)
	if w.CPU > 0 {
		fmt.Fprintf(r.out, "  cpu %.2f us", w.CPU)
	}
	if w.Reads >= 1 {
		fmt.Fprintf(r.out, "  reads %.0f B", w.Reads)
	}
	fmt.Fprintln(r.out)
}

// A subject is what is measured at one size.
type subject struct {
	*report
	of   string
	size int
}

// each reports what one of n calls of fn takes: time, CPU of the whole process,
// bytes read from disks.
func (s subject) each(what string, n int, fn func(i int) error) error {
	return s.took(what, "us", n, func() error {
		for i := range n {
			if err := fn(i); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
		return nil
	})
}

// once reports what fn takes.
func (s subject) once(what string, fn func() error) error { return s.took(what, "ms", 1, fn) }

func (s subject) took(what, unit string, n int, fn func() error) error {
	reads, cpu, start := diskReads(), cpuTime(), time.Now()
	err := fn()
	took := float64(time.Since(start).Nanoseconds()) / 1e3 / float64(n)
	if unit == "ms" {
		took /= 1e3
	}
	s.add(row{
		s.of, s.size, what, took, unit,
		float64((cpuTime() - cpu).Nanoseconds()) / 1e3 / float64(n), float64(diskReads()-reads) / float64(n),
	})
	return err
}

func (s subject) memory(when string) {
	// Else what the collector has not yet given back would count as in use.
	debug.FreeOSMemory()
	m := readMemory()
	s.add(row{s.of, s.size, "memory " + when + ": heap", float64(m.heap) / (1 << 20), "MiB", 0, 0})
	s.add(row{s.of, s.size, "memory " + when + ": anonymous", float64(m.anon) / (1 << 20), "MiB", 0, 0})
	s.add(row{s.of, s.size, "memory " + when + ": mapped", float64(m.file) / (1 << 20), "MiB", 0, 0})
}
