// Command fsstress does the same random operations on names, attributes and data in two
// directories, several sequences at a time, compares every result, and in the end the trees. It
// is to be run as root. REFERENCE lies on a filesystem that is trusted, such as ext4.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/quarxtor/quarxfs/tools/cli"
)

func main() { cli.Main(newCommand()) }

func newCommand() *cobra.Command {
	var seed uint64
	var ops, procs int
	cmd := &cobra.Command{
		Use:   "fsstress [flags] DIR REFERENCE",
		Short: "Do the same random operations in two directories and compare",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			group, ctx := errgroup.WithContext(cmd.Context())
			for i := range procs {
				// Sequences share the filesystem and no directory, so that each can be compared by
				// itself.
				group.Go(func() error { return stress(ctx, args[0], args[1], seed, i, ops) })
			}
			if err := group.Wait(); err != nil {
				return fmt.Errorf("seed %d: %w", seed, err)
			}
			fmt.Printf("seed %d: %d operations, no difference\n", seed, ops*procs)
			return nil
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&seed, "seed", uint64(time.Now().UnixNano()), "`number` that decides the operations")
	f.IntVar(&ops, "ops", 20_000, "operations in each sequence")
	f.IntVar(&procs, "procs", 4, "sequences at a time")
	return cmd
}

// stress runs one sequence in a new directory of each tree.
func stress(ctx context.Context, dir, ref string, seed uint64, number, ops int) error {
	name := fmt.Sprintf("/stress-%d", number)
	dirs := [2]string{dir + name, ref + name}
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	// One generator draws and both sides run: the reference always meets the very same operation.
	rng := rand.New(rand.NewPCG(seed, uint64(number)))
	for n := range ops {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		op := draw(rng)
		// The tested one first, or the reference would warm what the two may share.
		got, want := op.run(dirs[0]), op.run(dirs[1])
		if got != want {
			return fmt.Errorf("sequence %d, operation %d, %s: got %s, the reference %s", number, n, op, got, want)
		}
	}
	// Results were equal step by step; this finds what no result has shown, as bytes that were
	// never read.
	got, err := tree(dirs[0])
	if err != nil {
		return err
	}
	want, err := tree(dirs[1])
	if err != nil {
		return err
	}
	if err := differ(got, want); err != nil {
		return fmt.Errorf("sequence %d: %w", number, err)
	}
	// Only without a difference: else both trees stay to be looked at.
	return errors.Join(os.RemoveAll(dirs[0]), os.RemoveAll(dirs[1]))
}
