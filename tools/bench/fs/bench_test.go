package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"

	"github.com/quarxtor/quarxfs/tools/serve"
)

func TestFillIsRepeatableAndHalfCompressible(t *testing.T) {
	a, b, other := make([]byte, 1<<20+123), make([]byte, 1<<20+123), make([]byte, 1<<20+123)
	fill(a, 7)
	fill(b, 7)
	fill(other, 8)
	if !bytes.Equal(a, b) {
		t.Error("one seed gave two contents")
	}
	same := 0
	for i := range a {
		if a[i] == other[i] {
			same++
		}
	}
	if same > len(a)/100 {
		t.Errorf("two seeds agree in %d of %d bytes", same, len(a))
	}
	if r := float64(len(s2.Encode(nil, a))) / float64(len(a)); r < 0.45 || r > 0.6 {
		t.Errorf("compresses to %.2f of its size, want about half", r)
	}
	seen := map[[compressGrain]byte]bool{}
	for off := 0; off+compressGrain <= len(a); off += compressGrain {
		g := [compressGrain]byte(a[off:])
		if seen[g] {
			t.Fatalf("grain at %d occurred before: it would deduplicate", off)
		}
		seen[g] = true
	}
}

func BenchmarkFill(b *testing.B) {
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		fill(buf, 1)
	}
}

func TestSpread(t *testing.T) {
	for _, tc := range []struct {
		in   []float64
		want spread
	}{
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{4, 1}, spread{2.5, 1, 4}},
		{[]float64{9, 1, 2}, spread{2, 1, 9}},
	} {
		if got := spreadOf(tc.in); got != tc.want {
			t.Errorf("%v: got %v, want %v", tc.in, got, tc.want)
		}
	}
	if s := spreadOf(nil); !math.IsNaN(s.Median) {
		t.Errorf("the median of nothing is %v", s.Median)
	}
	if p := (spread{Median: 2, Min: 1, Max: 3}).percent(); p != 50 {
		t.Errorf("percent %v", p)
	}
}

func TestSummarize(t *testing.T) {
	places := []*serve.Target{{Name: "ref", Kind: "loopback"}, {Name: "q", Kind: "quarxfs"}, {Name: "p", Kind: "plain"}}
	w := []workload{{name: "w", aim: 1.5, aimMessages: 2}}
	rows := summarize(w, places, []sample{
		{Workload: "w", Target: "ref", Round: 0, Seconds: 2, Ops: 10},
		{Workload: "w", Target: "q", Round: 0, Seconds: 1, Ops: 10, Messages: map[string]int64{"READ": 5, "WRITE": 10}},
		{Workload: "w", Target: "ref", Round: 1, Seconds: 6, Ops: 10},
		{Workload: "w", Target: "q", Round: 1, Seconds: 2, Ops: 10},
		{Workload: "w", Target: "p", Round: 0, Skipped: "why"},
	})
	perOp := 1.5
	want := []row{
		{Workload: "w", Target: "ref", Seconds: spread{4, 2, 6}, Rate: 2.5, Unit: "ops"},
		{
			Workload: "w", Target: "q", Seconds: spread{1.5, 1, 2}, Rate: 10 / 1.5, Unit: "ops",
			Ratio: &spread{2.5, 2, 3}, Aim: 1.5, MessagesOp: &perOp, AimMessages: 2,
		},
		{Workload: "w", Target: "p", Unit: "ops", Skipped: "why"},
	}
	if d := cmp.Diff(want, rows); d != "" {
		t.Error(d)
	}
	var text strings.Builder
	if err := (report{Targets: []string{"ref", "q", "p"}, Rows: rows}).writeText(&text); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"2.50 (2.00 .. 3.00)", "1.5 met", "1.5 of 2 met", "skipped: why"} {
		if !strings.Contains(text.String(), part) {
			t.Errorf("the text lacks %q:\n%s", part, text.String())
		}
	}
}

func TestParseTrace(t *testing.T) {
	const head = "# tracer: nop\n#\n# entries-in-buffer/entries-written: "
	const lines = " #P:2\n#\n" +
		"  ls-8552  [001] ...1.  1478.57: fuse_request_send: connection 39 req 16 opcode 22 (FUSE_GETXATTR) len 65 \n" +
		"  (x)-8552 [001] ...1.  1478.58: fuse_request_send: connection 39 req 18 opcode 22 (FUSE_GETXATTR) len 65 \n" +
		"  dd-8553  [000] ...1.  1478.59: fuse_request_send: connection 39 req 20 opcode 15 (FUSE_READ) len 80 \n"
	got, err := parseTrace(strings.NewReader(head + "3/3  " + lines))
	if d := cmp.Diff(map[string]int64{"GETXATTR": 2, "READ": 1}, got); d != "" || err != nil {
		t.Error(err, d)
	}
	if got, err := parseTrace(strings.NewReader(head + "3/4  " + lines)); err == nil {
		t.Errorf("a trace that lost an event counts as %v", got)
	}
}

func TestDaemonFigures(t *testing.T) {
	if got, err := parseVmHWM("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"); got != 2048<<10 || err != nil {
		t.Error(got, err)
	}
	if _, err := parseVmHWM("Name:\tx\n"); err == nil {
		t.Error("a status without VmHWM is taken")
	}
	if peak, err := peakRSS(os.Getpid()); err != nil || peak < 1<<20 {
		t.Error(peak, err)
	}
	if _, err := cpuSeconds(os.Getpid()); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(map[string]int64{"a": 2, "c": 1}, minus(map[string]int64{"a": 5, "b": 1, "c": 1}, map[string]int64{"a": 3, "b": 1})); d != "" {
		t.Error(d)
	}
}

func TestParseTarget(t *testing.T) {
	for arg, want := range map[string]target{
		"quarxfs":            {"quarxfs", "quarxfs", "/w"},
		"plain:/mnt/a:b":     {"plain", "plain", "/mnt/a:b"},
		"x=loopback":         {"x", "loopback", "/w"},
		"x=custom:/d":        {"x", "custom", "/d"},
		"x=plain:/mnt/a=b:c": {"x", "plain", "/mnt/a=b:c"},
	} {
		if got, err := parseTarget(arg, "/w"); got != want || err != nil {
			t.Errorf("%s: %+v, %v", arg, got, err)
		}
	}
	for _, arg := range []string{"", "=plain", "x=", ":/d"} {
		if got, err := parseTarget(arg, "/w"); err == nil {
			t.Errorf("%q is taken as %+v", arg, got)
		}
	}
}

func TestChoose(t *testing.T) {
	all, err := choose("", false)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, w := range all {
		if seen[w.name] || w.doc == "" || w.setup == nil || w.run == nil || w.heavy {
			t.Errorf("workload %q is incomplete, double or heavy", w.name)
		}
		seen[w.name] = true
	}
	if w, err := choose("gen-first", false); err != nil || len(w) != 1 {
		t.Errorf("a heavy workload asked for by name: %v, %v", w, err)
	}
	if _, err := choose("no such", false); err == nil {
		t.Error("--only without a match is taken")
	}
}

// smallTree is a source tree of three files.
func smallTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"a", "d/b", "d/e/c"} {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// All workloads on two plain directories, from the command line to the JSON;
// nothing may be left behind.
func TestCommandOnPlainDirectories(t *testing.T) {
	work := t.TempDir()
	cmd := newCommand()
	var out, log bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&log)
	// The cold ones would drop the caches of a machine that others use.
	cmd.SetArgs([]string{
		"--only", "seq-write|4k$|warm|untar|cp-a|rm-rf|create|mount", "--scale", "0.001", "--rounds", "2", "--no-trace",
		"--work", work, "--tree", smallTree(t), "--json", "-", "a=plain", "b=plain",
	})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	var rep report
	if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	ran := map[string]bool{}
	for _, r := range rep.Rows {
		ran[r.Workload+" "+r.Target] = true
		if r.Skipped == "" && (r.Seconds.Median <= 0 || r.Rate <= 0) {
			t.Errorf("%s on %s: %+v", r.Workload, r.Target, r)
		}
	}
	for _, want := range []string{"seq-write-new a", "seq-write-dup b", "rand-write-4k a", "fsync-4k b", "untar a", "rm-rf b", "create a"} {
		if !ran[want] {
			t.Errorf("no row for %s", want)
		}
	}
	if left, err := os.ReadDir(work); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A filesystem that returns a wrong byte must not get a figure.
func TestWrongResultsAreErrors(t *testing.T) {
	place, err := serve.NewPlain("p", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := place.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	flip := func(name string) func(*env) error {
		return func(e *env) error {
			b, err := os.ReadFile(e.path(name))
			if err != nil {
				return err
			}
			b[len(b)/2]++
			return os.WriteFile(e.path(name), b, 0o644)
		}
	}
	harm := map[string]func(*env) error{
		"seq-write-new": flip("seq"),
		"seq-write-dup": func(e *env) error { return os.Truncate(e.path("dup"), 5) },
		"seq-write-4k":  flip("small"),
		"rand-write-4k": flip("rand"),
		"untar":         func(e *env) error { return os.Remove(e.path("tree/d/b")) },
		"cp-a":          func(e *env) error { return os.Truncate(e.path("copy/a"), 1) },
		"rm-rf":         func(e *env) error { return os.Mkdir(e.path("copy"), 0o755) },
	}
	for name, do := range harm {
		t.Run(name, func(t *testing.T) {
			ws, err := choose("^"+name+"$", false)
			if err != nil {
				t.Fatal(err)
			}
			w := ws[0]
			honest := w.run
			w.run = func(e *env) (amount, error) {
				did, err := honest(e)
				return did, errors.Join(err, do(e))
			}
			b := &bench{
				workloads: []workload{w}, places: []*serve.Target{place}, rounds: 1, verify: true,
				log:   slog.New(slog.DiscardHandler),
				input: &input{seed: 1, scale: 0.001, tree: smallTree(t), dir: t.TempDir()},
				peak:  map[string]int64{},
			}
			err = b.run(t.Context(), func(s sample) { t.Errorf("counted: %+v", s) })
			if err == nil || !strings.Contains(err.Error(), "wrong result") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestInterruptedRunCleansUp(t *testing.T) {
	work := t.TempDir()
	cmd := newCommand()
	cmd.SetOut(&bytes.Buffer{})
	cmd.SetErr(&bytes.Buffer{})
	cmd.SetArgs([]string{"--work", work, "--scale", "0.001", "--tree", smallTree(t), "--no-trace", "plain"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := cmd.ExecuteContext(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(work); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
