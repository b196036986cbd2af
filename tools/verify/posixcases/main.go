// Command posixcases runs a table of filesystem cases in two directories, one
// of them on the machine's own disk for reference, and reports where results
// differ. A difference is a bug unless docs/posix.md has a line for it; such
// lines are in known.go, and one that no longer differs is reported too. It must run as
// root, because it acts as other users and makes devices.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/tools/cli"
)

func main() { cli.Main(newCommand()) }

func newCommand() *cobra.Command {
	var pattern string
	var s session
	cmd := &cobra.Command{
		Use:   "posixcases --ref DIR --dir DIR",
		Short: "Compare a filesystem with a reference, case by case",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			match, err := regexp.Compile(pattern)
			if err != nil {
				return fmt.Errorf("--run: %w", err)
			}
			if os.Geteuid() != 0 {
				return errors.New("must run as root: it acts as other users and makes devices")
			}
			// Cases give modes to the bit; a shell's umask would cut them, and alike in both
			// directories.
			unix.Umask(0)
			s.out = cmd.OutOrStdout()
			return s.run(cmd.Context(), table(), match)
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.ref, "ref", "", "reference `directory`")
	f.StringVar(&s.dir, "dir", "", "`directory` to test")
	f.StringVar(&pattern, "run", "", "run only cases that match this `regexp`")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "print every result, and documented differences")
	_ = cmd.MarkFlagRequired("ref") // fails for a flag that there is not
	_ = cmd.MarkFlagRequired("dir")
	// Some cases need another process, and this program is the only one that is surely there.
	cmd.AddCommand(&cobra.Command{
		Use: "helper", Hidden: true, DisableFlagParsing: true,
		Run: func(_ *cobra.Command, args []string) { os.Exit(helper(args)) },
	})
	return cmd
}

// A testCase works in an empty directory and notes results that do not depend
// on which filesystem it is.
type testCase struct {
	name string
	run  func(*execution)
}

func table() []testCase {
	return slices.Concat(
		permissionCases(), privilegeCases(), aclCases(), xattrCases(), nameCases(), renameCases(), linkCases(), timeCases(),
		dataCases(), sparseCases(), copyCases(), directoryCases(), openCases(), lockCases(), mountCases(), specialCases(),
	)
}

type session struct {
	ref, dir                      string
	out                           io.Writer
	verbose                       bool
	cases, lines, documented, bad int
}

// run compares the cases that match, and returns an error if results differ that should not.
func (s *session) run(ctx context.Context, cases []testCase, match *regexp.Regexp) error {
	before := s.cases
	for _, c := range cases {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !match.MatchString(c.name) {
			continue
		}
		if err := s.compare(c); err != nil {
			return err
		}
	}
	fmt.Fprintf(s.out, "%d cases, %d results, %d documented differences, %d undocumented\n", s.cases, s.lines, s.documented, s.bad)
	// A pattern with a mistake in it must not look like a filesystem without differences.
	if s.cases == before {
		return fmt.Errorf("no case matches %q", match)
	}
	if s.bad > 0 {
		return fmt.Errorf("%d results differ from the reference", s.bad)
	}
	return nil
}

func (s *session) compare(c testCase) error {
	s.cases++
	// One after the other and not at once: cases change the umask and the clock is part of some.
	want, err := execute(c, s.ref)
	if err != nil {
		return err
	}
	got, err := execute(c, s.dir)
	if err != nil {
		return err
	}
	// A label that only one of the two noted differs, too: the other stopped early, or went another
	// way.
	labels := slices.Clone(want.order)
	for _, l := range got.order {
		if !slices.Contains(labels, l) {
			labels = append(labels, l)
		}
	}
	for _, l := range labels {
		s.lines++
		s.line(c.name+": "+l, want.results[l], got.results[l])
	}
	return nil
}

func (s *session) line(label, want, got string) {
	doc, ok := documentation(label)
	switch {
	case want == got && !ok:
		if s.verbose {
			fmt.Fprintf(s.out, "same  %s = %s\n", label, got)
		}
	// Not counted as bad: some differences depend on the reference's kernel.
	case want == got:
		fmt.Fprintf(s.out, "note  %s = %s: documented as different, but is not\n", label, got)
	case ok:
		s.documented++
		if s.verbose {
			fmt.Fprintf(s.out, "doc   %s: %s, reference %s (%s)\n", label, got, want, doc)
		}
	default:
		s.bad++
		fmt.Fprintf(s.out, "DIFF  %s: %s, reference %s\n", label, got, want)
	}
}

// execute runs a case in a new directory. That the case panics is a result, too.
func execute(c testCase, parent string) (r *execution, err error) {
	dir, err := os.MkdirTemp(parent, "case")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// A directory within, as cases change the mode of r.dir, and the one around it must stay one
	// that can be removed.
	r = &execution{dir: filepath.Join(dir, "d"), results: make(map[string]string)}
	defer r.cleanUp()
	defer func() {
		// The directory's name is in many errors, and differs.
		if e := recover(); e != nil {
			r.note("aborted", strings.ReplaceAll(fmt.Sprint(e), dir, "DIR"))
		}
	}()
	// MkdirTemp makes it 0700, where alice would not get through.
	must(os.Chmod(dir, 0o755))
	must(os.Mkdir(r.dir, 0o777))
	c.run(r)
	return r, nil
}
