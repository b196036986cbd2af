package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
)

// hangTime is how long a daemon, or a disk, may take to answer a command that looks for its store.
// Tests shorten it.
var hangTime = 30 * time.Second

// forever is for what a command may wait for until it is interrupted.
const forever time.Duration = math.MaxInt64

// asked returns what ask does, unless ctx ends first, or nothing has come within that time. A
// system call about a path in a mount whose daemon hangs, or on a disk that does, ends with
// neither; it is left behind. daemon.ErrNoAnswer.
func asked[T any](ctx context.Context, within time.Duration, about []string, ask func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	said := make(chan answer, 1) // room for the answer that nobody waits for any more
	go func() {
		value, err := ask()
		said <- answer{value, err}
	}()
	late := time.NewTimer(within)
	defer late.Stop()
	var none T
	select {
	case a := <-said:
		return a.value, a.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-late.C:
	}
	what := "the current directory"
	if list := quoted(about); len(list) > 0 {
		what = strings.Join(list, " ")
	}
	return none, fmt.Errorf("%w: nothing is to be seen of %s for %v: the daemon of its mount, or its disk, hangs", daemon.ErrNoAnswer, what, within)
}

// endable runs a command. One that goes on long after it was asked to end, as its thread waits in
// the kernel for a file, is left behind; what it does with a store is as safe as in a crash.
func endable(c *cobra.Command, run func() error) error {
	if staysUp(c) {
		return run()
	}
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	select {
	case err := <-ended:
		return err
	case <-c.Context().Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(hangTime):
		return c.Context().Err()
	}
}

// staysUp reports whether a command becomes a daemon or is a helper of one, which ends by its own
// rules: its last commit may take longer.
func staysUp(c *cobra.Command) bool {
	foreground := c.Flags().Lookup("foreground")
	return c.Hidden || c.Name() == "serve" || foreground != nil && foreground.Changed
}
