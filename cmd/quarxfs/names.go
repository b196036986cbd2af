package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/remote"
)

// A saidError has been shown to the user already: only its exit code is left to be said.
type saidError struct{ err error }

func (e saidError) Error() string { return "" }

func (e saidError) Unwrap() error { return e.err }

// eachName does the same to each of the names that a command was given, as rm(1) does: one that
// fails is named on standard error and keeps none of the others, and what was done is printed as
// "did NAME", unless did is empty. It returns the first failure.
//
// Where STORE was left out and the first name fails, nothing is done: it may be a misspelt STORE,
// and the others would be taken from the store that one stands in.
func eachName(cmd *cobra.Command, did string, names []string, do func(name string) error) (first error) {
	noStore := words(cmd)[0].name == storeWord && cmd.Flags().NArg() == len(names)
	for i, name := range names {
		err := do(name)
		if err == nil && did != "" {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", did, printable(name))
		}
		switch {
		case err == nil:
			continue
		// Main shows the only one, as of any other command.
		case len(names) == 1:
			return err
		case i == 0 && noStore:
			return fmt.Errorf("%w: nothing is done, as %s may be meant for a store", err, printable(name))
		}
		// Before the next one is tried, which may take long; and in the order of the names.
		if text := oneLine(err); text != "" {
			fmt.Fprintln(cmd.ErrOrStderr(), "quarxfs:", text)
		}
		if first == nil {
			first = saidError{err}
		}
		// The others would wait as long for the same answer.
		if cmd.Context().Err() != nil || errors.Is(err, daemon.ErrNoAnswer) || errors.Is(err, remote.ErrNoAnswer) {
			return first
		}
	}
	return first
}
