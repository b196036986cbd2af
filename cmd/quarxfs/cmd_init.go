package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/chunk"
)

type initOptions struct {
	chunker     string
	blockSize   byteSize
	compression string
	segmentSize byteSize
}

func newInit() *cobra.Command {
	o := &initOptions{}
	cmd := &cobra.Command{
		Use:   "init STORE",
		Short: "Make a new store",
		Long: `Makes a new store in the directory STORE, which must be missing or empty. What is
chosen here stays for the store's life.

  --chunker fastcdc   files are split at boundaries chosen from the content: an insertion
                      costs a few blocks. --block-size is the average; blocks have a
                      quarter to four times of it. Tar archives are split at their
                      members, so that these share the blocks of the same files.
  --chunker fixed     blocks of equal size: for disk images and databases.`,
		Example: `  quarxfs init /srv/store
  quarxfs init /srv/images --chunker fixed --block-size 16KiB`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) },
	}
	o.addFlags(cmd)
	return cmd
}

func (o *initOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.chunker, o.compression = "fastcdc", "s2"
	choiceVar(f, &o.chunker, []string{"fastcdc", "fixed"}, "chunker", "how files are split into blocks")
	o.blockSize = 64 << 10
	f.Var(blockSizeFlag(&o.blockSize), "block-size", "average or fixed block size, a power of two from 4KiB to 4MiB")
	choiceVar(f, &o.compression, []string{"s2", "none"}, "compression", "of new blocks")
	o.segmentSize = 64 << 20
	sizeVar(f, sizeFlag{to: &o.segmentSize, least: 1 << 20, most: 1 << 30, example: "64MiB"}, "segment-size", "size of the files that hold the blocks, 1MiB to 1GiB; less than 64MiB on a small disk unless it is given")
}

// blockSizeFlag is a flag of the size of blocks.
func blockSizeFlag(to *byteSize) *sizeFlag {
	return &sizeFlag{to: to, least: 4 << 10, most: 4 << 20, example: "64KiB"}
}

func (o *initOptions) config() (store.Config, error) {
	conf := store.DefaultConfig()
	conf.Compression = o.compression
	conf.SegmentSize = int64(o.segmentSize)
	size := int(o.blockSize)
	if size&(size-1) != 0 {
		return conf, fmt.Errorf("%w: --block-size %d: give a power of two, such as 64KiB", errUsage, size)
	}
	switch o.chunker {
	case "fastcdc":
		conf.Chunker.Min, conf.Chunker.Avg, conf.Chunker.Max = size/4, size, size*4
	case "fixed":
		conf.Chunker = chunk.Config{Name: "fixed", Min: size, Avg: size, Max: size}
	default:
		return conf, fmt.Errorf("%w: chunker %q: choose fastcdc or fixed", store.ErrConfig, o.chunker)
	}
	return conf, conf.Validate()
}

// notNested refuses a place for a store, or a part of one, that lies in the mount of a store: each
// commit of the inner one would make the outer one write and commit as well, and neither
// could be opened without the other.
func notNested(ctx context.Context, dir string) error {
	_, err := asked(ctx, hangTime, []string{dir}, func() (any, error) { return nil, checkNested(dir) })
	return err
}

func checkNested(dir string) error {
	// What else is wrong with the path is said by whoever makes the directory.
	if p, _ := findLocation(dir); p != nil && p.quarxfs() {
		return fmt.Errorf("%w: %s lies in the mount %s of another store; choose a directory outside of it", errUsage, dir, p.mount.Dir)
	}
	// A store's directory is copied and removed as a whole: what is in it must be its own.
	for above := filepath.Dir(dir); ; above = filepath.Dir(above) {
		if _, err := store.ReadConfig(above); err == nil {
			return fmt.Errorf("%w: %s lies in the store %s; choose a directory outside of it", errUsage, dir, above)
		}
		if above == filepath.Dir(above) {
			return nil
		}
	}
}

func (o *initOptions) run(cmd *cobra.Command, arg string) error {
	dir, err := mounts.Abs(arg)
	if err != nil {
		return err
	}
	if err := notNested(cmd.Context(), dir); err != nil {
		return err
	}
	conf, err := o.config()
	if err != nil {
		return err
	}
	// A disk too small for a few segments would be full before the first one could be given back.
	if !cmd.Flags().Changed("segment-size") {
		if conf.SegmentSize, err = store.FitSegmentSize(dir); err != nil {
			return err
		}
	}
	if err := initStore(dir, conf, cmd.ErrOrStderr()); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s: new store, %s blocks of %s, compression %s\n",
		dir, o.chunker, humanize.IBytes(uint64(o.blockSize)), conf.Compression)
	return nil
}
