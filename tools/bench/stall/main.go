// Command stall tells how long a program that makes files waits while a command runs, such
// as one that makes a snapshot. First it makes many files, so that there is
// something to do:
//
//	go run ./tools/bench/stall --files 100000 /mnt/stall quarxfs snapshot create /mnt
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/tools/cli"
)

func main() { cli.Main(newCommand()) }

func newCommand() *cobra.Command {
	var files, size int
	var settle time.Duration
	cmd := &cobra.Command{
		Use:   "stall [flags] DIR COMMAND [ARGUMENT...]",
		Short: "Measure how long making files waits while a command runs",
		Long:  "Make files in DIR, which must be missing, then more of them while a command runs.",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if files < 0 || size < 1 {
				return errors.New("--files must not be negative and --size must be positive")
			}
			return run(cmd.Context(), args[0], files, size, settle, args[1:])
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // the command's flags are its own
	f.IntVar(&files, "files", 100_000, "files to make before")
	f.IntVar(&size, "size", 4096, "`bytes` of each file")
	f.DurationVar(&settle, "settle", 0, "time between the files and the command")
	return cmd
}

// A wait is how long the steps of making one file took.
type wait struct{ open, write, close time.Duration }

func (w wait) all() time.Duration { return w.open + w.write + w.close }

func run(ctx context.Context, dir string, files, size int, settle time.Duration, command []string) error {
	body := make([]byte, size)
	begun := time.Now()
	for i := range files {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := makeFile(dir, i, body); err != nil {
			return err
		}
	}
	made := time.Since(begun)
	time.Sleep(settle)
	stop := make(chan struct{})
	var waits []wait
	var failed error
	var wg sync.WaitGroup
	// Files go on being made before the command begins and after it ends, so that no wait at its
	// edges is missed.
	wg.Go(func() {
		for i := files; failed == nil; i++ {
			select {
			case <-stop:
				return
			default:
			}
			var w wait
			if w, failed = makeFile(dir, i, body); failed == nil {
				waits = append(waits, w)
			}
		}
	})
	begun = time.Now()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	took := time.Since(begun)
	close(stop)
	wg.Wait()
	// The command's error first: the files may have failed because of it.
	if err == nil {
		err = failed
	}
	if err != nil || len(waits) == 0 {
		return fmt.Errorf("%d files made meanwhile: %w", len(waits), err)
	}
	fmt.Printf("%d files made in %v; the command took %v\n", files, made.Round(time.Millisecond), took.Round(time.Millisecond))
	report(waits)
	return nil
}

// makeFile makes file i, 1,000 in a directory, each with other bytes.
func makeFile(dir string, i int, body []byte) (w wait, err error) {
	dir = filepath.Join(dir, fmt.Sprint(i/1000))
	if i%1000 == 0 {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return w, err
		}
	}
	// Outside of the time, and other bytes in each file, or they would be deduplicated.
	rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}).Read(body)
	begun := time.Now()
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(i)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return w, err
	}
	// Step by step, as each can wait for something else: a commit, room for dirty bytes, a flush.
	w.open = time.Since(begun)
	_, err = f.Write(body)
	w.write = time.Since(begun) - w.open
	cerr := f.Close()
	w.close = time.Since(begun) - w.open - w.write
	if err == nil {
		err = cerr
	}
	return w, err
}

func report(waits []wait) {
	fmt.Printf("%d files made meanwhile; the longest waits in ms, for all steps: ", len(waits))
	slices.SortFunc(waits, func(a, b wait) int { return int(b.all() - a.all()) })
	for _, w := range waits[:min(5, len(waits))] {
		fmt.Printf("%.1f (open %.1f, write %.1f, close %.1f)  ", ms(w.all()), ms(w.open), ms(w.write), ms(w.close))
	}
	// Sorted from the longest, so the hundredth part of the way is the 99th percentile.
	fmt.Printf("\np99 %.1f ms, median %.2f ms\n", ms(waits[len(waits)/100].all()), ms(waits[len(waits)/2].all()))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
