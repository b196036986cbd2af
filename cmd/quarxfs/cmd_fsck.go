package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/termlog"
	"github.com/quarxtor/quarxfs/fs/fsck"
	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/store"
)

type fsckOptions struct {
	fast   bool
	json   bool
	repair bool
}

func newFsck() *cobra.Command {
	o := &fsckOptions{}
	cmd := &cobra.Command{
		Use:   "fsck [STORE]",
		Short: "Check a store, and repair it",
		Long: `Compares all that the store keeps twice: the index with the segments, reference counts
with references, names with inodes, sums with what they sum up; and then reads every
block, as scrub does. On a mounted store, writers wait for the first part.

If lost files keep the store from opening, all of them are listed and the exit code is 6.

--repair needs the store unmounted. It never removes the last copy of anything: what has
lost its name or its place goes to lost+found. Blocks of a lost segment are given up: reading
them is an error until the same bytes are stored again. All else is kept.`,
		Example: `  quarxfs fsck /mnt --fast
  quarxfs fsck /srv/store --repair`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.fast, "fast", false, "do not read the blocks")
	jsonFlag(f, &o.json)
	f.BoolVar(&o.repair, "repair", false, "repair what can be repaired")
	return cmd
}

// A fsckReport is what fsck prints as JSON.
type fsckReport struct {
	Repairs []string     `json:"repairs,omitempty"`
	Check   remote.Fsck  `json:"check"`
	Scrub   *scrubReport `json:"scrub,omitempty"`

	done   []store.Repaired // of which Repairs are the texts
	closed bool             // the store did not open: only its files were looked at
}

func (o *fsckOptions) run(cmd *cobra.Command, args []string) error {
	var r fsckReport
	// Before the check, which then shows what is left.
	if o.repair {
		var err error
		if r.done, err = repairStore(cmd, args); err != nil {
			return err
		}
		for _, d := range r.done {
			r.Repairs = append(r.Repairs, d.Text)
		}
	}
	err := onStore(cmd, args, func(n remote.Node) (err error) {
		if r.Check, err = n.Fsck(cmd.Context()); err != nil || o.fast {
			return err
		}
		// From the beginning: a scrub that was interrupted and is resumed would not have seen all.
		s, err := scrub(cmd, n, remote.ScrubOptions{Restart: true}, o.json)
		r.Scrub = &s
		return err
	})
	// A store that does not open is no reason to say nothing: its files can be looked at without
	// it.
	files := store.DamagedFiles(err)
	if err != nil && len(files) == 0 {
		return err
	}
	if r.closed = err != nil; r.closed {
		// All that was found is in the report, and once is enough.
		err = coded{Code: exitCode(err), Text: fmt.Sprintf("%v: %s of its files keep it from opening", store.ErrDamaged, humanize.Comma(int64(len(files))))}
	}
	for _, f := range files {
		r.Check.Count++
		r.Check.Findings = append(r.Check.Findings, remote.Finding{Rule: "files", Subject: f.File, Text: f.What + ": " + f.Next})
	}
	out := cmd.OutOrStdout()
	if o.json {
		// The report is printed even when the store did not open; the error gives the exit code.
		err = errors.Join(err, rawjson.Write(out, r))
	} else {
		err = errors.Join(err, r.print(out))
	}
	if err == nil && r.count() > 0 {
		err = fmt.Errorf("%w: %s: %s", errDamage, amount(r.count(), "finding"), r.next(o.repair))
	}
	// Joined: damage decides about the exit code, and both are said.
	return errors.Join(err, unchecked(r.hidden()))
}

// next says what to do about what was found.
func (r *fsckReport) next(repaired bool) string {
	switch {
	case r.Scrub != nil && len(r.Scrub.Damaged) > 0:
		return "copy the files that are named in again from a backup, or fetch their blocks with quarxfs scrub --from REMOTE"
	case r.Scrub == nil:
		return "without --fast, fsck names the files that are damaged; with --repair, unmounted, it repairs the rest"
	case !repaired:
		return "unmount it and run quarxfs fsck --repair"
	}
	return "see docs/troubleshooting.md"
}

func (r *fsckReport) count() int64 {
	n := r.Check.Count
	if r.Scrub != nil {
		n += int64(len(r.Scrub.Damaged) + len(r.Scrub.Segments))
	}
	return n
}

// hidden is how many blocks could not be looked at.
func (r *fsckReport) hidden() int64 {
	n := r.Check.Hidden
	if r.Scrub != nil {
		n = max(n, r.Scrub.Hidden)
	}
	return n
}

func (r *fsckReport) print(w io.Writer) error {
	showRepairs(w, r.done)
	c := &r.Check
	var err error
	if !r.closed {
		_, err = fmt.Fprintf(w, "%s, %s among them, %s, %s: %s\n", amount(c.Blocks, "block"),
			amount(c.Vertices, "vertex"), amount(c.Objects, "object"), amount(c.Segments, "segment"), amount(c.Count, "finding"))
	}
	// A bad block is found by both; the scrub's line names its files, so that the other is left
	// out.
	scrubbed := r.scrubbed()
	for _, f := range c.Findings {
		if !scrubbed[f.Subject] {
			fmt.Fprintf(w, "%s: %s: %s%s\n", f.Rule, f.Subject, f.Text, hits(f))
		}
	}
	// The check keeps a part of very many findings, and counts all.
	if n := c.Count - int64(len(c.Findings)); n > 0 {
		fmt.Fprintf(w, "and %s more\n", humanize.Comma(n))
	}
	if r.Scrub == nil {
		showHidden(w, c.Hidden)
	} else if err == nil {
		err = r.Scrub.print(w)
	}
	return err
}

// scrubbed are the subjects of findings about blocks of which the scrub's report says more.
func (r *fsckReport) scrubbed() map[string]bool {
	blocks := make(map[string]bool)
	if r.Scrub != nil {
		for _, b := range r.Scrub.Damaged {
			blocks[b.ID.String()] = true
		}
	}
	return blocks
}

// showRepairs prints what a repair did, a line for each kind: the rest is in the JSON.
func showRepairs(w io.Writer, done []store.Repaired) {
	count := make(map[string]int)
	for _, d := range done {
		count[d.Kind]++
	}
	for _, d := range done {
		switch n := count[d.Kind]; n {
		case 0: // shown already
			continue
		case 1:
			fmt.Fprintf(w, "repaired: %s\n", d.Text)
		default:
			fmt.Fprintf(w, "repaired: %s (and %s more likewise: see --json)\n", d.Text, humanize.Comma(int64(n-1)))
		}
		// So that the next of the kind finds 0 and is passed over, in the order of what was done.
		delete(count, d.Kind)
	}
}

func hits(f remote.Finding) string {
	var names []string
	for _, p := range f.Paths {
		names = append(names, printable(p))
	}
	for _, o := range f.Objects {
		names = append(names, "object "+printable(o))
	}
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// repairStore repairs a store that nobody has open.
func repairStore(cmd *cobra.Command, args []string) (done []store.Repaired, err error) {
	a, err := findStore(cmd, args)
	if err != nil {
		return nil, err
	}
	log := slog.New(termlog.New(a.stderr))
	// No daemon is asked: a repair changes rows that an open volume keeps in memory.
	st, leave, err := openStore(a.dir, store.Options{Logger: log, SweepInterval: -1, Salvage: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, leave()) }()
	defer func() { err = errors.Join(err, st.Close()) }()
	if done, err = fsck.Repair(cmd.Context(), st); err != nil {
		return done, err
	}
	// The extents of the volume, which has just been repaired, refer to blocks, too.
	holder := func(ctx context.Context, ref func(store.ID)) error { return fsck.References(ctx, st, ref) }
	more, err := st.Repair(cmd.Context(), store.CheckOptions{
		Holders: []func(context.Context, func(store.ID)) error{holder},
		LostDirectory: func(ctx context.Context, tree store.ID) ([]byte, error) {
			return graph.LostDirectory(ctx, st, tree, time.Now())
		},
	})
	return append(done, more...), err
}
