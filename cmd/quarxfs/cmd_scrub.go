package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/remote/transfer"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// errDamage: a scrub or a check found what is wrong with the store.
var errDamage = errors.New("damage was found")

type scrubOptions struct {
	rate    byteSize
	restart bool
	from    string
	json    bool
}

func newScrub() *cobra.Command {
	o := &scrubOptions{}
	cmd := &cobra.Command{
		Use:   "scrub [STORE]",
		Short: "Read and check every block",
		Long: `Reads every block from the disk and checks it. The store may be mounted and in use. The
next scrub resumes an interrupted one. Bad blocks are marked and named
with the files and objects that they are in; when the same bytes are written again,
wherever in the store, they heal.`,
		Example: `  quarxfs scrub /mnt --rate 50MiB
  quarxfs scrub /srv/store --json | jq -r '.damaged[].files[].path'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// Through the daemon if it is mounted: its rows are the newest.
			return onStore(cmd, args, func(n remote.Node) error { return o.run(cmd, n) })
		},
	}
	f := cmd.Flags()
	rateVar(f, &o.rate, "rate", "most bytes read a second, such as 50MiB; 0: no limit")
	f.StringVar(&o.from, "from", "", "fetch good copies of bad and missing blocks from this `remote`")
	f.BoolVar(&o.restart, "restart", false, "start from the beginning, even if the last scrub was interrupted")
	jsonFlag(f, &o.json)
	return cmd
}

// A scrubReport is what a scrub found.
type scrubReport struct {
	store.Scrubbed
	Damaged []remote.BadBlock `json:"damaged"`
}

func (o *scrubOptions) run(cmd *cobra.Command, n remote.Node) error {
	r, err := scrub(cmd, n, remote.ScrubOptions{Rate: int64(o.rate), Restart: o.restart}, o.json)
	if err == nil && o.from != "" {
		err = r.restore(cmd, n, o.from)
	}
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if o.json {
		err = rawjson.Write(out, r)
	} else {
		err = r.print(out)
	}
	// Also after a restore, of which what it could not fetch is left.
	if err == nil && (len(r.Damaged) > 0 || len(r.Segments) > 0) {
		err = fmt.Errorf("%w: %s, %s", errDamage, amount(len(r.Damaged), "bad block"), amount(len(r.Segments), "damaged segment"))
	}
	return errors.Join(err, unchecked(r.Hidden))
}

// scrub runs a scrub and shows how far it is.
func scrub(cmd *cobra.Command, n remote.Node, o remote.ScrubOptions, quiet bool) (scrubReport, error) {
	line := newProgress(cmd.ErrOrStderr(), quiet)
	defer line.clear()
	r := scrubReport{Damaged: []remote.BadBlock{}}
	begun, from := time.Now(), int64(-1)
	err := n.Scrub(cmd.Context(), o, func(s remote.Scrub) error {
		r.Scrubbed = s.Scrubbed
		if s.Damaged != nil {
			r.merge(*s.Damaged)
		}
		// A resumed scrub begins where the last one stopped, so the speed counts from there.
		if from < 0 {
			from = s.Bytes
		}
		speed := float64(s.Bytes-from) / max(0.001, time.Since(begun).Seconds())
		line.show("%.1f %% of %s, %s/s, %s bad", percent(s.Bytes, s.Total), size(s.Total), size(int64(speed)), humanize.Comma(s.Bad))
		return nil
	})
	return r, err
}

// restore fetches what is damaged from a remote.
func (r *scrubReport) restore(cmd *cobra.Command, n remote.Node, name string) error {
	return onRemote(cmd.Context(), n, name, func(_ config.Remote, peer *remote.Client) error {
		ids := make([]store.ID, len(r.Damaged))
		for i, b := range r.Damaged {
			ids[i] = b.ID
		}
		// Noted one by one: those that came before an error are whole.
		restored := make(map[store.ID]bool)
		_, err := transfer.RestoreBlocks(cmd.Context(), peer, n, ids, func(id store.ID) { restored[id] = true })
		r.Damaged = slices.DeleteFunc(r.Damaged, func(b remote.BadBlock) bool { return restored[b.ID] })
		r.Bad -= int64(len(restored))
		r.Healed += int64(len(restored))
		// Durable before it is called restored.
		if err == nil {
			err = n.Sync(cmd.Context())
		}
		return err
	})
}

func (r *scrubReport) merge(b remote.BadBlock) {
	// A block with many files comes in several parts, one after the other.
	if n := len(r.Damaged); n > 0 && r.Damaged[n-1].ID == b.ID {
		last := &r.Damaged[n-1]
		last.Files = append(last.Files, b.Files...)
		last.Objects = append(last.Objects, b.Objects...)
		return
	}
	r.Damaged = append(r.Damaged, b)
}

func (r scrubReport) print(w io.Writer) error {
	resumed := ""
	if r.Resumed {
		resumed = " (resumed)"
	}
	_, err := fmt.Fprintf(w, "%s, %s read%s: %s bad, %s healed\n",
		amount(r.Blocks, "block"), size(r.Bytes), resumed, humanize.Comma(int64(len(r.Damaged))), humanize.Comma(r.Healed))
	showHidden(w, r.Hidden)
	for _, s := range r.Segments {
		fmt.Fprintln(w, s)
	}
	r.showDamaged(w)
	return err
}

// showHidden prints a line for blocks that could not be looked at, if there are any.
func showHidden(w io.Writer, blocks int64) {
	if blocks > 0 {
		fmt.Fprintf(w, "not checked: %s in the cold tier, which is out of reach\n", amount(blocks, "block"))
	}
}

// unchecked is the error of a check that could not look at some blocks, or nil.
func unchecked(blocks int64) error {
	if blocks == 0 {
		return nil
	}
	return fmt.Errorf("not all was checked: %w", store.ErrUnavailable)
}

// shownRanges is how many ranges of a file are named in its line.
const shownRanges = 4

// showDamaged prints a line for each file and object with bad blocks in it, and one for the
// blocks of which nothing is known.
func (r scrubReport) showDamaged(w io.Writer) {
	ranges := make(map[string][]string) // of files
	objects, alone := make(map[string]int), make(map[string]int)
	more := false
	for _, b := range r.Damaged {
		for _, f := range b.Files {
			which := fmt.Sprintf("bytes %d to %d", f.Offset, f.Offset+f.Bytes)
			if f.Bytes == 0 {
				which = "its vertex, and so all that is in it"
			}
			ranges[f.Name()] = append(ranges[f.Name()], which)
		}
		for _, name := range b.Objects {
			objects[name]++
		}
		// As many as are looked for: there may be more.
		more = more || inSnapshots(b.Files) == remote.MaxSnapshotUses
		if len(b.Files)+len(b.Objects) == 0 {
			alone[b.Reason]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ranges)) {
		all := ranges[name]
		fmt.Fprintf(w, "damaged: %s: %s", printable(name), strings.Join(all[:min(len(all), shownRanges)], ", "))
		if n := len(all) - shownRanges; n > 0 {
			fmt.Fprintf(w, " and %s", amount(n, "more range"))
		}
		fmt.Fprintln(w)
	}
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		fmt.Fprintf(w, "damaged: object %s: %s\n", printable(name), amount(objects[name], "bad block"))
	}
	if more {
		fmt.Fprintln(w, "and perhaps more in snapshots: see quarxfs graph why BLOCK, with the blocks of --json")
	}
	for _, reason := range slices.Sorted(maps.Keys(alone)) {
		fmt.Fprintf(w, "damaged: %s in no file and no object: %s\n", amount(alone[reason], "block"), reason)
	}
}

func inSnapshots(uses []remote.Use) (n int) {
	for _, u := range uses {
		if u.Snapshot != "" {
			n++
		}
	}
	return n
}
