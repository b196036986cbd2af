package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/store/simulate"
	"github.com/quarxtor/quarxfs/tiering"
)

// errLeftOut: some files could not be read.
var errLeftOut = errors.New("not all could be read")

type simulateOptions struct {
	chunkers     []string
	sizes        []string
	compressions []string
	like         string
	memory       byteSize
	oneFS        bool
	json         bool
}

func newSimulate() *cobra.Command {
	o := &simulateOptions{}
	cmd := &cobra.Command{
		Use:   "simulate DIR...",
		Short: "Say what a store would save on data that is not in one",
		Long: `Reads all below DIR once and says, for every way to split it into blocks, what a store
would take. Nothing is written. Every combination of --chunker, --avg and
--compression is tried. Files with several names count once, and holes are not read.

  Logical   what is in the files, without holes and blocks of zeroes
  Unique    each distinct block once
  Stored    unique blocks, compressed, as records in segments
  Index     rows that find the blocks, on disk; of these about 3 % stay in memory
  Speed     of one core that splits, hashes and compresses

A new store splits at boundaries that depend on a random key, so its result differs a
little. --like takes the key and all settings of an existing store.

What cannot be read is named and left out, and the exit code is 15.`,
		Example: `  quarxfs simulate ~/src /srv/images
  quarxfs simulate /home --chunker fastcdc --avg 32KiB,128KiB --compression s2,zstd
  quarxfs simulate /home --like /srv/store --json | jq '.results[0].ratio'`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	f := cmd.Flags()
	o.chunkers, o.sizes, o.compressions = []string{"fastcdc", "fixed"}, []string{"16KiB", "64KiB", "256KiB"}, []string{"s2"}
	// Defaults that show the range: both ways and a small, a middle and a large size.
	listVar(f, &o.chunkers, "chunker", "", "`ways` to split: fastcdc, fixed", "fastcdc", "fixed")
	listVar(f, &o.sizes, "avg", "", "average or fixed block `sizes`, powers of two from 4KiB to 4MiB")
	listVar(f, &o.compressions, "compression", "", "`compressions`: none, s2, zstd", "none", "s2", "zstd")
	f.StringVar(&o.like, "like", "", "with the settings of this `STORE`, and no others unless they are given")
	o.memory = 1 << 30
	memoryVar(f, &o.memory, 64<<10, "memory", "memory for the IDs of blocks; with more blocks the figures are estimates from a sample")
	f.BoolVarP(&o.oneFS, "one-file-system", "x", false, "leave out what is mounted below DIR")
	jsonFlag(f, &o.json)
	return cmd
}

func (o *simulateOptions) run(cmd *cobra.Command, dirs []string) error {
	opts, err := o.options(cmd)
	if err != nil {
		return err
	}
	line := newProgress(cmd.ErrOrStderr(), o.json)
	begun := time.Now()
	var there []string
	left := eachName(cmd, "", dirs, func(dir string) error {
		_, err := os.Stat(dir)
		if err == nil {
			there = append(there, dir)
		}
		return err
	})
	if len(there) == 0 {
		return left
	}
	opts.Progress = func(in simulate.Input) {
		speed := float64(in.Read) / max(0.001, time.Since(begun).Seconds())
		line.show("%s files, %s read, %s/s", humanize.Comma(in.Files), size(in.Read), size(int64(speed)))
	}
	opts.Skip = func(path string, err error) {
		// The progress line and the message share the terminal.
		line.clear()
		fmt.Fprintf(cmd.ErrOrStderr(), "quarxfs: left out: %s: %v\n", printable(path), cause(err))
	}
	// What cannot be read is named at once and does not end the run; the exit code says so at its
	// end.
	r, err := simulate.Run(cmd.Context(), there, opts)
	line.clear()
	if err != nil {
		return err
	}
	if o.json {
		err = rawjson.Write(cmd.OutOrStdout(), r)
	} else {
		err = showSimulation(cmd.OutOrStdout(), r)
	}
	if err == nil && r.Input.Skipped > 0 {
		err = fmt.Errorf("%w: %s left out", errLeftOut, amount(r.Input.Skipped, "path"))
	}
	return errors.Join(left, err)
}

// options reads the flags; an unusable one is store.ErrConfig.
func (o *simulateOptions) options(cmd *cobra.Command) (simulate.Options, error) {
	s := simulate.Options{Memory: int64(o.memory), OneFilesystem: o.oneFS}
	given := cmd.Flags().Changed
	if o.like != "" {
		dir, err := asked(cmd.Context(), hangTime, []string{o.like}, func() (string, error) { return locate(o.like) })
		if err != nil {
			return s, err
		}
		conf, err := store.ReadConfig(dir)
		if err != nil {
			return s, err
		}
		s.Chunkers = append(s.Chunkers, conf.Chunker)
		if !given("compression") {
			o.compressions = []string{conf.Compression}
		}
	}
	// With --like, other chunkers are tried only if they are asked for.
	if o.like == "" || given("chunker") || given("avg") {
		configs, err := o.configs()
		if err != nil {
			return s, err
		}
		s.Chunkers = append(s.Chunkers, configs...)
	}
	for _, name := range o.compressions {
		codec, err := parseCompression(name)
		if err != nil {
			return s, err
		}
		s.Codecs = append(s.Codecs, codec)
	}
	return s, nil
}

// configs combines chunkers and sizes as init would.
func (o *simulateOptions) configs() ([]chunk.Config, error) {
	var all []chunk.Config
	for _, name := range o.chunkers {
		for _, text := range o.sizes {
			like := initOptions{chunker: name, compression: "s2", segmentSize: 64 << 20}
			if err := blockSizeFlag(&like.blockSize).Set(text); err != nil {
				return nil, fmt.Errorf("%w: --avg: %v", errUsage, err)
			}
			conf, err := like.config()
			if err != nil {
				return nil, err
			}
			// Each would get a random key of its own; without one, runs can be compared.
			conf.Chunker.Key = nil
			all = append(all, conf.Chunker)
		}
	}
	return all, nil
}

func parseCompression(name string) (tiering.Codec, error) {
	switch name {
	case "none":
		return tiering.Raw, nil
	case "s2":
		return tiering.S2, nil
	case "zstd":
		return tiering.Zstd, nil
	}
	return 0, fmt.Errorf("%w: compression %q: choose none, s2 or zstd", errUsage, name)
}

func showSimulation(w io.Writer, r simulate.Report) error {
	in := r.Input
	fmt.Fprintf(w, "%s in %s, %s read in %.1f s", amount(in.Files, "file"), amount(in.Directories, "directory"), size(in.Read), r.Seconds)
	if in.Holes > 0 {
		fmt.Fprintf(w, "; %s are holes", size(in.Holes))
	}
	if in.Hardlinks > 0 {
		fmt.Fprintf(w, "; %s more", amount(in.Hardlinks, "name"))
	}
	fmt.Fprintln(w)
	right := text.AlignRight
	t := newTable("", text.AlignLeft, right, text.AlignLeft, right, right, right, right, right, right, right, right, right)
	t.AppendHeader(table.Row{"Chunker", "Block", "Codec", "Logical", "Unique", "Stored", "Dedup", "Compr.", "Total", "Blocks", "Index", "Speed"})
	// The coarsest sample of all rows is what the note has to say.
	sampled := int64(1)
	for _, v := range r.Results {
		sampled = max(sampled, v.SampledOneIn)
		t.AppendRow(table.Row{chunkerName(v.Chunker.Name), size(int64(v.Chunker.Avg)), compressionName(v.Codec), size(v.Logical), size(v.Unique), size(v.Stored),
			times(v.DedupRatio), times(v.CompressionRatio), times(v.Ratio), humanize.Comma(v.Blocks),
			size(v.Index.Bytes + v.Index.Extents), size(int64(v.Speed)) + "/s"})
	}
	section(w, t)
	if sampled > 1 {
		fmt.Fprintf(w, "\nMore blocks than fit into --memory: unique, stored and blocks are estimates from one block in %d or fewer.\n", sampled)
	}
	return nil
}

// chunkerName is how --chunker calls it.
func chunkerName(name string) string {
	if name == chunk.FastCDC || name == chunk.FastCDCTar {
		return "fastcdc"
	}
	return name
}

func compressionName(codec string) string {
	if codec == tiering.Raw.String() {
		return "none"
	}
	return codec
}

// cause leaves out the operation and path that an error of a file names.
func cause(err error) error {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err
}
