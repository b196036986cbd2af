package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newSession compares two empty directories. A case finds out by r.dir where it is.
func newSession(t *testing.T) (*session, *bytes.Buffer) {
	t.Helper()
	out := new(bytes.Buffer)
	return &session{ref: t.TempDir(), dir: t.TempDir(), out: out, verbose: true}, out
}

// tested tells whether a case runs in the directory under test.
func (s *session) tested(r *execution) bool { return strings.HasPrefix(r.dir, s.dir+"/") }

func TestSession(t *testing.T) {
	for _, tc := range []struct {
		name string
		note func(r *execution, tested bool)
		line string // in what it prints
		bad  int
	}{
		{"same result", func(r *execution, _ bool) { r.note("x", 1, nil, unix.ENOENT) }, "same  c: x = 1 ok ENOENT\n", 0},
		{"other result", func(r *execution, tested bool) { r.note("x", tested) }, "DIFF  c: x: true, reference false\n", 1},
		{"result missing", func(r *execution, tested bool) {
			if !tested {
				r.note("x", "there")
			}
		}, "DIFF  c: x: , reference there\n", 1},
		{"result only of the tested", func(r *execution, tested bool) {
			if tested {
				r.note("x", "there")
			}
		}, "DIFF  c: x: there, reference \n", 1},
		{"panic in one", func(r *execution, tested bool) {
			if tested {
				must(unix.EIO)
			}
		}, "DIFF  c: aborted: input/output error, reference \n", 1},
		{"panic in both, with the directory's name", func(r *execution, _ bool) { must(os.Remove(r.p("none"))) },
			"same  c: aborted = remove DIR/d/none: no such file or directory\n", 0},
		{"label used twice", func(r *execution, _ bool) { r.note("x", 1); r.note("x", 2) }, "same  c: x #1 = 2\n", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, out := newSession(t)
			c := testCase{"c", func(r *execution) { tc.note(r, s.tested(r)) }}
			err := s.run(t.Context(), []testCase{c}, regexp.MustCompile(""))
			if (err != nil) != (tc.bad > 0) || s.bad != tc.bad {
				t.Errorf("%d bad, %v; want %d", s.bad, err, tc.bad)
			}
			if !strings.Contains(out.String(), tc.line) {
				t.Errorf("printed %q, want a line %q", out, tc.line)
			}
			for _, dir := range []string{s.ref, s.dir} {
				if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
					t.Errorf("left behind: %v, %v", left, err)
				}
			}
		})
	}
}

// What docs/posix.md describes is no failure; that it no longer differs is told.
func TestDocumentedDifference(t *testing.T) {
	const name, label = "times/range", "get 1099511627776"
	s, out := newSession(t)
	differs := testCase{name, func(r *execution) { r.note(label, s.tested(r)) }}
	if err := s.run(t.Context(), []testCase{differs}, regexp.MustCompile("")); err != nil || s.documented != 1 {
		t.Errorf("%d documented, %v", s.documented, err)
	}
	if !strings.Contains(out.String(), "doc   times/range: get 1099511627776: true, reference false (Larger limits)") {
		t.Error(out)
	}
	same := testCase{name, func(r *execution) { r.note(label, 1) }}
	if err := s.run(t.Context(), []testCase{same}, regexp.MustCompile("")); err != nil || !strings.Contains(out.String(), "documented as different, but is not") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestWhichCasesRun(t *testing.T) {
	var ran []string
	mark := func(name string) testCase {
		return testCase{name, func(*execution) { ran = append(ran, name) }}
	}
	cases := []testCase{mark("a/one"), mark("a/two"), mark("b/one")}
	s, _ := newSession(t)
	if err := s.run(t.Context(), cases, regexp.MustCompile("^a/t")); err != nil || strings.Join(ran, " ") != "a/two a/two" {
		t.Errorf("ran %v, %v", ran, err)
	}
	if err := s.run(t.Context(), cases, regexp.MustCompile("none")); err == nil {
		t.Error("no case matched, and that passed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.run(ctx, cases, regexp.MustCompile("")); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	s.dir = filepath.Join(s.dir, "missing")
	if err := s.run(t.Context(), cases, regexp.MustCompile("")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory to test: %v", err)
	}
}

// What a case puts off is done in reverse order, after a panic as well.
func TestLater(t *testing.T) {
	var order []int
	c := testCase{"c", func(r *execution) {
		r.defer_(func() { order = append(order, 1) })
		r.defer_(func() { order = append(order, 2) })
		panic("over")
	}}
	if r, err := execute(c, t.TempDir()); err != nil || r.results["aborted"] != "over" || len(order) != 2 || order[0] != 2 {
		t.Errorf("%v, %v, %v", r, err, order)
	}
}

// The names of cases choose them, and known.go names results by them: each is there once.
func TestTable(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range table() {
		if seen[c.name] || !regexp.MustCompile(`^[a-z]+/[a-z0-9-]+$`).MatchString(c.name) {
			t.Errorf("%q is there twice or is no name", c.name)
		}
		seen[c.name] = true
	}
}

// TestCommand compares a directory with another of the same disk, on real cases.
func TestCommand(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, as the cases do")
	}
	cmd := newCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--ref", t.TempDir(), "--dir", t.TempDir(), "--run", "^link/|^rename/"})
	if err := cmd.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), " 0 undocumented") {
		t.Errorf("%v: %s", err, out.String())
	}
	cmd = newCommand()
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	cmd.SetArgs([]string{"--dir", t.TempDir()})
	if err := cmd.ExecuteContext(t.Context()); err == nil {
		t.Error("no reference, and that passed")
	}
}
