// Command fsstress does the same random operations on names, attributes and
// data in two directories, several sequences at a time, compares every result, and
// in the end the trees:
//
//	fsstress [-seed N] [-ops N] [-procs N] DIR REFERENCE
//
// It is to be run as root. REFERENCE lies on a filesystem that is trusted, such as ext4.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

func main() {
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the sequences")
	ops := flag.Int("ops", 20_000, "operations in each sequence")
	procs := flag.Int("procs", 4, "sequences at a time")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: fsstress [flags] DIR REFERENCE")
		os.Exit(2)
	}
	var wg sync.WaitGroup
	errs := make([]error, *procs)
	for i := range *procs {
		wg.Go(func() { errs[i] = stress(flag.Arg(0), flag.Arg(1), *seed, i, *ops) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintf(os.Stderr, "fsstress: seed %d: %v\n", *seed, err)
		os.Exit(1)
	}
	fmt.Printf("seed %d: %d operations, no difference\n", *seed, *ops**procs)
}

// stress runs one sequence in a new directory of each tree.
func stress(dir, ref string, seed uint64, number, ops int) error {
	name := fmt.Sprintf("/stress-%d", number)
	dirs := [2]string{dir + name, ref + name}
	for _, d := range dirs {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	rng := rand.New(rand.NewPCG(seed, uint64(number)))
	for n := range ops {
		op := draw(rng)
		got, want := op.run(dirs[0]), op.run(dirs[1])
		if got != want {
			return fmt.Errorf("sequence %d, operation %d, %s: got %s, the reference %s", number, n, op, got, want)
		}
	}
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
	return errors.Join(os.RemoveAll(dirs[0]), os.RemoveAll(dirs[1]))
}
