// Command posixcases runs a table of filesystem cases in two directories, one
// of them on the machine's own disk for reference, and reports where results
// differ. A difference is a bug unless docs/posix.md has a line for it; such
// lines are in known.go, and one that no longer differs is reported too.
//
//	posixcases -ref DIR -dir DIR [-run REGEXP] [-v]
//
// It must run as root, because it acts as other users and makes devices. Exit
// status: 0 no difference, 1 differences, 2 it could not run.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "-helper" {
		os.Exit(helper(os.Args[2:]))
	}
	ref := flag.String("ref", "", "reference `directory`")
	dir := flag.String("dir", "", "`directory` to test")
	pattern := flag.String("run", "", "run only cases that match this `regexp`")
	verbose := flag.Bool("v", false, "print every result, and documented differences")
	flag.Parse()
	match, err := regexp.Compile(*pattern)
	if err != nil || *ref == "" || *dir == "" || os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "usage, as root: posixcases -ref DIR -dir DIR [-run REGEXP] [-v]")
		os.Exit(2)
	}
	unix.Umask(0)
	s := &session{ref: *ref, dir: *dir, verbose: *verbose}
	for _, c := range table() {
		if match.MatchString(c.name) {
			s.compare(c)
		}
	}
	fmt.Printf("%d cases, %d results, %d documented differences, %d undocumented\n", s.cases, s.lines, s.documented, s.bad)
	if s.bad > 0 {
		os.Exit(1)
	}
}

// A testCase works in an empty directory and notes results that do not depend
// on which filesystem it is.
type testCase struct {
	name string
	run  func(*run)
}

func table() []testCase {
	return slices.Concat(
		permissionCases(), privilegeCases(), aclCases(), xattrCases(), nameCases(), renameCases(), linkCases(), timeCases(),
		dataCases(), sparseCases(), copyCases(), directoryCases(), openCases(), lockCases(), mountCases(), specialCases(),
	)
}

type session struct {
	ref, dir                      string
	verbose                       bool
	cases, lines, documented, bad int
}

func (s *session) compare(c testCase) {
	s.cases++
	want, got := execute(c, s.ref), execute(c, s.dir)
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
}

func (s *session) line(label, want, got string) {
	doc, ok := documentation(label)
	switch {
	case want == got && !ok:
		if s.verbose {
			fmt.Printf("same  %s = %s\n", label, got)
		}
	case want == got:
		fmt.Printf("note  %s = %s: documented as different, but is not\n", label, got)
	case ok:
		s.documented++
		if s.verbose {
			fmt.Printf("doc   %s: %s, reference %s (%s)\n", label, got, want, doc)
		}
	default:
		s.bad++
		fmt.Printf("DIFF  %s: %s, reference %s\n", label, got, want)
	}
}

func execute(c testCase, parent string) (r *run) {
	dir, err := os.MkdirTemp(parent, "case")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	defer os.RemoveAll(dir)
	r = &run{dir: filepath.Join(dir, "d"), results: make(map[string]string)}
	defer r.cleanUp()
	defer func() {
		if e := recover(); e != nil {
			r.note("aborted", strings.ReplaceAll(fmt.Sprint(e), dir, "DIR"))
		}
	}()
	must(os.Chmod(dir, 0o755))
	must(os.Mkdir(r.dir, 0o777))
	c.run(r)
	return r
}
