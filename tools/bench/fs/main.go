// Command bench runs a table of workloads on one or more filesystems in turn
// and compares them with the first. `bench --help` shows how targets are named;
// docs of the workloads: `bench --list`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/tools/cli"
	"github.com/quarxtor/quarxfs/tools/serve"
)

func main() { cli.Main(newCommand()) }

type options struct {
	work, tree            string
	loopbackBin, quarxBin string
	initFlags, mountFlags string
	commands              commandFlags
	only                  string
	rounds                int
	scale                 float64
	seed                  uint64
	json                  string
	heavy, list, verbose  bool
	noVerify, noTrace     bool
}

func newCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "bench [flags] TARGET...",
		Short: "Run workloads on filesystems and compare them",
		Long: `Run workloads on filesystems, round by round and in turn, and compare each with
the first. A TARGET is [NAME=]SERVER[:DIR]; the files go to a new directory in
DIR (default --work), which is removed at the end. SERVER is

  plain     DIR as it is, or what is mounted there
  loopback  go-fuse's example/loopback over a directory in DIR
  quarxfs   a new QuarXFS store in DIR
  custom    whatever the --mount-cmd of this NAME mounts: commands for sh with
            $MNT, the mountpoint, and $DIR, an empty directory for the data

Every round starts on a new, empty filesystem. Everything written is made
durable within the measured time. "Cold" workloads remount and drop the kernel's
caches, which needs root. FUSE messages are counted in the first round, by the
kernel's tracepoint (root, Linux 6.9), else by the daemon where it can.

Exit status: 0 done, 1 a workload failed, was interrupted or gave a wrong result.`,
		Example: `  bench --rounds 5 loopback quarxfs
  bench --only 'untar|cp' --rounds 1 plain:/mnt/other quarxfs
  bench --mount-cmd 'other=otherfs $DIR $MNT' loopback other=custom`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.work, "work", "/var/tmp/quarxfs-bench", "`directory` for targets without one, and for the input")
	f.StringVar(&o.tree, "tree", filepath.Join(goroot(), "src"), "source `directory` that untar and the rest use")
	f.StringVar(&o.loopbackBin, "loopback", "bin/loopback", "the loopback `program`")
	f.StringVar(&o.quarxBin, "quarxfs", "bin/quarxfs", "the quarxfs `program`")
	f.StringVar(&o.initFlags, "init-flags", "", "`flags` for quarxfs init")
	f.StringVar(&o.mountFlags, "mount-flags", "", "`flags` for quarxfs mount")
	o.commands.register(f)
	f.StringVar(&o.only, "only", "", "run the workloads that match a `regexp`, heavy ones too")
	f.BoolVar(&o.heavy, "heavy", false, "run the heavy workloads too (20 GiB written to each target at scale 1)")
	f.IntVar(&o.rounds, "rounds", 5, "how often to run each workload on each target")
	f.Float64Var(&o.scale, "scale", 1, "size of the data, relative (the tree stays: see --tree)")
	f.Uint64Var(&o.seed, "seed", 1, "seed of the data")
	f.StringVar(&o.json, "json", "", "write the report as JSON to a `file`, - for standard output instead of text")
	f.BoolVar(&o.noVerify, "no-verify", false, "skip the untimed comparison of what was written and read")
	f.BoolVar(&o.noTrace, "no-trace", false, "do not count FUSE messages by the kernel's tracepoint")
	f.BoolVar(&o.list, "list", false, "list the workloads and leave")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log each step")
	return cmd
}

// goroot asks the go command: a program built with -trimpath does not know.
// Without one the default is a relative path that set-up will name.
func goroot() string {
	root, _ := exec.Command("go", "env", "GOROOT").Output()
	return strings.TrimSpace(string(root))
}

func (o *options) run(cmd *cobra.Command, args []string) error {
	workloads, err := choose(o.only, o.heavy)
	if err != nil {
		return err
	}
	if o.list {
		return printWorkloads(cmd.OutOrStdout(), workloads)
	}
	if len(args) == 0 {
		return errors.New("no target given; bench --help tells how to name one")
	}
	if o.rounds < 1 || o.scale <= 0 {
		return errors.New("--rounds and --scale must be positive")
	}
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	rep, err := o.measure(cmd.Context(), log, workloads, args)
	// What was measured before a failure took time to measure, and is shown.
	if len(rep.Samples) > 0 {
		err = errors.Join(err, o.publish(cmd.OutOrStdout(), rep))
	}
	return err
}

func (o *options) publish(stdout io.Writer, rep report) error {
	if o.json == "-" {
		return rep.writeJSON(stdout)
	}
	if err := rep.writeText(stdout); err != nil || o.json == "" {
		return err
	}
	f, err := os.Create(o.json)
	if err != nil {
		return err
	}
	return errors.Join(rep.writeJSON(f), f.Close())
}

// measure returns what it has measured also when it fails half-way.
func (o *options) measure(ctx context.Context, log *slog.Logger, workloads []workload, args []string) (rep report, err error) {
	if err := os.MkdirAll(o.work, 0o755); err != nil {
		return rep, err
	}
	inputDir, err := os.MkdirTemp(o.work, "quarxfs-input-")
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(inputDir)) }()

	places, err := o.places(ctx, args)
	defer func() {
		// Set before the error is looked at: those made before the one that failed are mounted.
		for _, p := range places {
			err = errors.Join(err, p.Close(ctx))
		}
	}()
	if err != nil {
		return rep, err
	}
	// An interrupt cancels the context, but a system call that waits for a daemon does not hear of
	// it.
	defer unblockAfter(ctx, log, places)()

	b := &bench{
		workloads: workloads, places: places, rounds: o.rounds, verify: !o.noVerify, log: log,
		input: &input{seed: o.seed, scale: o.scale, tree: o.tree, dir: inputDir},
		peak:  map[string]int64{},
	}
	if !o.noTrace {
		if b.trace, err = newTracer(); err != nil {
			// A figure less; the times do not need it.
			log.Info("FUSE messages are counted only where the daemon does", "because", err)
		} else {
			defer func() { err = errors.Join(err, b.trace.close()) }()
		}
	}
	rep = report{Host: thisHost(), Scale: o.scale, Rounds: o.rounds, Seed: o.seed, Peak: b.peak}
	for _, p := range places {
		rep.Targets = append(rep.Targets, p.Name)
	}
	err = b.run(ctx, func(s sample) {
		rep.Samples = append(rep.Samples, s)
		log.Info("ran", "round", s.Round+1, "workload", s.Workload, "target", s.Target, "seconds", fmt.Sprintf("%.3f", s.Seconds))
	})
	rep.Rows = summarize(workloads, places, rep.Samples)
	return rep, err
}

// unblockAfter ends, once ctx is done, calls that wait for a daemon for longer
// than an interrupted user would. What it returns takes that back, and waits
// until nothing is logged or detached any more.
func unblockAfter(ctx context.Context, log *slog.Logger, places []*serve.Target) (stop func()) {
	returned, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-returned:
			return
		case <-ctx.Done():
		}
		log.Info("interrupted, cleaning up; a second interrupt leaves at once, with mounts in place")
		select {
		case <-returned:
			return
		case <-time.After(10 * time.Second):
		}
		for _, p := range places {
			if err := serve.Detach(p.Dir); err != nil {
				log.Error("detach", "dir", p.Dir, "err", err)
			}
		}
	}()
	return func() {
		close(returned)
		<-ended
	}
}

func choose(only string, heavy bool) ([]workload, error) {
	re, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("--only: %w", err)
	}
	var chosen []workload
	for _, w := range append(append(fileWorkloads(), treeWorkloads()...), heavyWorkloads()...) {
		// Named by --only a heavy one is meant.
		if only == "" && w.heavy && !heavy || !re.MatchString(w.name) {
			continue
		}
		chosen = append(chosen, w)
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("--only %s matches no workload; bench --list shows them", only)
	}
	return chosen, nil
}

func printWorkloads(w io.Writer, workloads []workload) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range workloads {
		fmt.Fprintf(tw, "%s\t%s\n", l.name, l.doc)
	}
	return tw.Flush()
}

// places makes the targets. On an error it returns those made so far, for the
// caller to close.
func (o *options) places(ctx context.Context, args []string) ([]*serve.Target, error) {
	var places []*serve.Target
	seen := map[string]bool{}
	for _, arg := range args {
		spec, err := parseTarget(arg, o.work)
		if err != nil {
			return places, err
		}
		if seen[spec.name] {
			return places, fmt.Errorf("two targets are called %q: name one, as in other=%s", spec.name, arg)
		}
		seen[spec.name] = true
		// A place comes even with an error, when something of it has been made.
		p, err := o.place(ctx, spec)
		if p != nil {
			places = append(places, p)
		}
		if err != nil {
			return places, fmt.Errorf("target %s: %w", arg, err)
		}
	}
	return places, nil
}

func (o *options) place(ctx context.Context, t target) (*serve.Target, error) {
	switch t.server {
	case "plain":
		return serve.NewPlain(t.name, t.dir)
	case "loopback":
		return serve.NewLoopback(t.name, t.dir, o.loopbackBin)
	case "quarxfs":
		return serve.NewQuarXFS(ctx, t.name, t.dir, serve.QuarXFS{
			Bin: o.quarxBin, InitFlags: strings.Fields(o.initFlags), MountFlags: strings.Fields(o.mountFlags),
		})
	case "custom":
		c := o.commands.forTarget(t.name)
		if c.Mount == "" {
			return nil, fmt.Errorf("needs --mount-cmd '%s=...'", t.name)
		}
		return serve.NewCommands(ctx, t.name, t.dir, c)
	}
	return nil, fmt.Errorf("no server is called %q (plain, loopback, quarxfs, custom)", t.server)
}

func thisHost() host {
	h := host{CPUs: runtime.NumCPU(), Go: runtime.Version(), Time: time.Now().UTC().Format(time.RFC3339)}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return h
}
