// Command clustertest runs the acceptances of clusters on machines that it makes of namespaces:
// real programs, a network that can be cut, disks that can be destroyed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/tools/cli"
)

func main() { cli.Main(newCommand()) }

// An acceptance is something that a cluster must show.
type acceptance struct {
	name   string
	what   string
	rounds int           // that it must pass for its full strength
	limit  time.Duration // of all of it
	run    func(context.Context, *trial) error
}

// acceptances are all that there are.
func acceptances() []acceptance {
	return []acceptance{
		{"A1", "from nothing to a file on two of three nodes: five commands, a minute; quarxfs has no gRPC", 1, 10 * time.Minute, runA1},
		{"A2", "a home is destroyed: its volume is a snapshot no older than the status had shown", 100, 2 * time.Hour, runA2},
		{"A3", "a home that was cut off pushes nothing, and what it acknowledged is saved", 50, 2 * time.Hour, runA3},
		{"A4", "a dead vault is noticed and made anew elsewhere; nothing is, when two of five are down", 1, time.Hour, runA4},
		{"A5", "a node is drained under load, and there are never fewer copies than wanted", 5, time.Hour, runA5},
		{"A6", "what blast says of each pair of six nodes is what happens", 1, 2 * time.Hour, runA6},
		{"A7", "the status while bad things happen: never OK, unknown is unknown, soon answered", 1, time.Hour, runA7},
		{"A8", "voters die: one is not felt, volumes go on without all, and rebuild brings all back", 1, time.Hour, runA8},
		{"A9", "10,000 nodes and 100,000 volumes, simulated: placing, forecasts, the size of etcd", 1, 30 * time.Minute, runA9},
		{"A10", "a store of an old program becomes a volume, and nothing of its format changes", 1, 20 * time.Minute, runA10},
		{"B1", "a home is destroyed: its mirror has every acknowledged fsync", 500, 12 * time.Hour, runB1},
	}
}

var errNotMet = errors.New("not met")

type options struct {
	work, bin string
	rounds    int
	seed      uint64
	limit     time.Duration
	hold      time.Duration
	json      bool
}

func newCommand() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "clustertest",
		Short: "Judge clusters by what they must bear",
		Long: `Makes machines of namespaces (network, mounts, processes, a disk of their own on a loop device)
on a switch, runs quarxfs and quarxfs-node there, and does to them what an acceptance says. It needs
root, and ip, nsenter, mount and mkfs.ext4. Nothing of it is seen on the host, and all of it goes
when the program ends, whatever that was of.

A seed fixes what is chosen; what the machines make of it in time is not the same again.

Exit status: 0 the acceptance was met, in as many rounds as were asked for; 1 it was not, a part of
it was skipped, or it could not run.`,
	}
	f := root.PersistentFlags()
	f.StringVar(&o.work, "work", "/var/tmp/quarxfs-clustertest", "`directory` for the machines' disks")
	f.StringVar(&o.bin, "bin", "", "`directory` with quarxfs and quarxfs-node; without it they are built")
	f.IntVar(&o.rounds, "rounds", 0, "how many `rounds`; 0: as many as the acceptance asks for")
	f.Uint64Var(&o.seed, "seed", 0, "seed of the run; 0 takes a new one")
	f.DurationVar(&o.limit, "limit", 0, "longest `time` of an acceptance; 0: its own")
	f.DurationVar(&o.hold, "hold", 0, "how long A8 keeps all voters down; 0: the ten minutes that it asks for")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	list := &cobra.Command{
		Use: "list", Short: "List the acceptances", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, a := range acceptances() {
				fmt.Fprintf(cmd.OutOrStdout(), "%-4s %s\n", a.name, a.what)
			}
			return nil
		},
	}
	all := &cobra.Command{
		Use: "all", Short: "Run all acceptances", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.judge(cmd, acceptances()) },
	}
	root.AddCommand(list, all, newInside())
	for _, a := range acceptances() {
		root.AddCommand(&cobra.Command{
			Use: a.name, Short: a.what, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return o.judge(cmd, []acceptance{a}) },
		})
	}
	return root
}

// judge runs acceptances one after the other, all of them even if one is not met.
func (o *options) judge(cmd *cobra.Command, which []acceptance) error {
	ctx := cmd.Context()
	if err := o.build(ctx); err != nil {
		return err
	}
	met := true
	for _, a := range which {
		r := o.one(ctx, a, cmd.ErrOrStderr())
		met = met && r.Met
		if err := r.print(cmd.OutOrStdout(), o.json); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if !met {
		return errNotMet
	}
	return nil
}

// build makes the programs, unless they were given.
func (o *options) build(ctx context.Context) error {
	if o.bin == "" {
		o.bin = filepath.Join(o.work, "bin")
		cmd := exec.CommandContext(ctx, "go", "build", "-o", o.bin+"/", "./cmd/quarxfs", "./cmd/quarxfs-node")
		if _, err := output(cmd); err != nil {
			return fmt.Errorf("in the module's root: %w", err)
		}
	}
	var err error
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	for _, name := range []string{"quarxfs", "quarxfs-node"} {
		if _, err := os.Stat(filepath.Join(o.bin, name)); err != nil {
			return err
		}
	}
	return nil
}

// one runs an acceptance on a rig of its own.
func (o *options) one(ctx context.Context, a acceptance, log io.Writer) *result {
	seed := o.seed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t := &trial{
		options: o, rng: rand.New(rand.NewPCG(seed, 0)), rounds: o.rounds, log: log,
		result: &result{Name: a.name, What: a.what, Seed: seed, FullRounds: a.rounds, Begun: time.Now().UTC(), Figures: map[string]any{}},
	}
	if t.rounds == 0 {
		t.rounds = a.rounds
	}
	limit := a.limit
	if o.limit > 0 {
		limit = o.limit
	}
	t.result.Limit = limit.String()
	fmt.Fprintf(log, "%s: seed %d, %d rounds, at most %v\n", a.name, seed, t.rounds, limit)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := a.run(ctx, t)
	if t.rig != nil {
		err = errors.Join(err, t.rig.close())
	}
	if err != nil {
		t.fail("it could not go on: %v", err)
	}
	r := t.result
	r.Took = time.Since(r.Begun).Round(100 * time.Millisecond).String()
	r.Met = len(r.Failures) == 0 && len(r.Skipped) == 0 && r.Rounds >= t.rounds
	return r
}

// A trial is an acceptance at work.
type trial struct {
	*options
	rig    *rig
	rng    *rand.Rand
	rounds int
	log    io.Writer
	result *result
}

// A result says whether an acceptance was met.
type result struct {
	Name       string         `json:"name"`
	What       string         `json:"what"`
	Met        bool           `json:"met"`
	Seed       uint64         `json:"seed"`
	Limit      string         `json:"limit"`
	Begun      time.Time      `json:"begun"`
	Took       string         `json:"took"`
	Rounds     int            `json:"rounds"`      // done
	FullRounds int            `json:"full_rounds"` // that the acceptance asks for
	Figures    map[string]any `json:"figures"`
	Failures   []string       `json:"failures"`
	Skipped    []string       `json:"skipped"` // parts that were not looked at
}

// newCluster makes the rig, with these machines as nodes.
func (t *trial) newCluster(ctx context.Context, names ...string) (err error) {
	if t.rig, err = newRig(ctx, t.work, t.bin, diskMiB); err != nil {
		return err
	}
	return t.rig.found(ctx, names...)
}

const diskMiB = 1024

// say tells how it goes.
func (t *trial) say(format string, args ...any) {
	fmt.Fprintf(t.log, "%s %s %s\n", time.Now().UTC().Format(time.TimeOnly), t.result.Name, fmt.Sprintf(format, args...))
}

// fail notes something that is not as it must be, and goes on.
func (t *trial) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	t.result.Failures = append(t.result.Failures, text)
	t.say("FAILED: %s", text)
}

// require is fail unless it holds, and returns whether it does.
func (t *trial) require(holds bool, format string, args ...any) bool {
	if !holds {
		t.fail(format, args...)
	}
	return holds
}

// skip notes a part that is not looked at, so that the acceptance is not met.
func (t *trial) skip(format string, args ...any) {
	t.result.Skipped = append(t.result.Skipped, fmt.Sprintf(format, args...))
	t.say("skipped: "+format, args...)
}

func (t *trial) measured(name string, value any) { t.result.Figures[name] = value }

func (r *result) print(w io.Writer, asJSON bool) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if asJSON {
		_, err = fmt.Fprintf(w, "%s\n", b)
		return err
	}
	word := "not met"
	if r.Met {
		word = "met"
	}
	fmt.Fprintf(w, "%s: %s, %d rounds of %d, seed %d, %s\n", r.Name, word, r.Rounds, r.FullRounds, r.Seed, r.Took)
	figures, err := json.Marshal(r.Figures)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "  figures  %s\n", figures)
	for _, text := range r.Failures {
		fmt.Fprintf(w, "  failed   %s\n", text)
	}
	for _, text := range r.Skipped {
		fmt.Fprintf(w, "  skipped  %s\n", text)
	}
	return nil
}
