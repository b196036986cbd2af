package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

type tierPolicyOptions struct {
	limit, rate    byteSize
	high, low      int
	minAge, window time.Duration
	hours          string
	pause, resume  bool
	off, whenBusy  bool
	dryRun         bool
	json           bool
}

func newTierPolicy() *cobra.Command {
	o := &tierPolicyOptions{}
	cmd := &cobra.Command{
		Use:   "policy [STORE]",
		Short: "Move blocks between tiers automatically, by how they are used",
		Long: `Sets how much the hot tier may hold, and when blocks move automatically while the store
is mounted; without flags it shows what is set and what is being done. From the high
watermark on, the coldest blocks go to the cold tier until the low one is reached. A block
that is read twice within the window is warm; it comes back when it is cold. At the limit
writers are slowed, or get ENOSPC when there is no cold tier to move to. A mounted store
applies changes at once. --dry-run says what would be moved now and why, with the flags
given, and sets nothing.`,
		Example: `  quarxfs tier policy /mnt --limit 200GiB --min-age 24h --hours 22:00-06:00
  quarxfs tier policy /mnt --limit 100GiB --dry-run
  quarxfs tier policy /mnt --pause`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args, func(n remote.Node) error { return o.run(cmd, n) })
		},
	}
	f := cmd.Flags()
	sizeVar(f, sizeFlag{to: &o.limit, least: 1 << 20, example: "200GiB"}, "limit", "most bytes of the hot tier, such as 200GiB")
	// Shown in the help; a policy that is not touched by a flag keeps its own.
	o.high, o.low, o.minAge, o.window = 90, 80, time.Hour, 24*time.Hour
	percentVar(f, &o.high, "high", "watermark, in `percent` of the limit, from which blocks leave")
	percentVar(f, &o.low, "low", "watermark, in `percent` of the limit, down to which they leave")
	timeVar(f, timeFlag{to: &o.minAge, least: time.Second, zero: "none"}, "min-age", "blocks stored or used more recently stay; 0s: none")
	timeVar(f, timeFlag{to: &o.window, least: time.Second}, "window", "two uses within this time make a block warm")
	sizeVar(f, sizeFlag{to: &o.rate, least: 64 << 10, zero: "the default, 32 MiB", rate: true, example: "20MiB"}, "rate", "most bytes moved a second (default 32 MiB)")
	f.StringVar(&o.hours, "hours", "", "move only at these `times` of day, such as 22:00-06:00; \"\": always")
	f.BoolVar(&o.whenBusy, "when-busy", false, "move even when the machine is short of CPU, memory or disk time")
	f.BoolVar(&o.pause, "pause", false, "move nothing until --resume, unless the hot tier is over its limit")
	f.BoolVar(&o.resume, "resume", false, "end --pause")
	f.BoolVar(&o.off, "off", false, "move nothing, and have no limit")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "only say what would be moved now, and why")
	jsonFlag(f, &o.json)
	cmd.MarkFlagsMutuallyExclusive("pause", "resume", "off")
	cmd.MarkFlagsMutuallyExclusive("off", "limit")
	return cmd
}

// apply changes what the flags say. set: some did.
func (o *tierPolicyOptions) apply(cmd *cobra.Command, p *store.TierPolicy) (set bool) {
	if o.off {
		*p = store.TierPolicy{}
		return true
	}
	for name, change := range map[string]func(){
		"limit": func() { p.Limit = int64(o.limit) },
		"high":  func() { p.High = o.high },
		"low":   func() { p.Low = o.low },
		"min-age": func() {
			// 0 is the default of the settings, so that no age at all needs a number of its own.
			if p.MinAge = int64(o.minAge / time.Second); p.MinAge == 0 {
				p.MinAge = -1
			}
		},
		"window":    func() { p.Window = int64(o.window / time.Second) },
		"rate":      func() { p.Rate = int64(o.rate) },
		"hours":     func() { p.Hours = o.hours },
		"pause":     func() { p.Paused = o.pause },
		"when-busy": func() { p.Busy = o.whenBusy },
		"resume":    func() { p.Paused = !o.resume },
	} {
		if cmd.Flags().Changed(name) {
			change()
			set = true
		}
	}
	return set
}

func (o *tierPolicyOptions) run(cmd *cobra.Command, n remote.Node) error {
	// The one that is set is read first, since flags change some of its values and leave the rest.
	now, err := n.TierPolicy(cmd.Context())
	if err != nil {
		return err
	}
	set := o.apply(cmd, &now.Policy)
	if o.dryRun {
		plan, err := n.PlanTiers(cmd.Context(), now.Policy)
		if err != nil {
			return err
		}
		return printOne(cmd, o.json, plan, func(w io.Writer) error { return showTierPlan(w, plan) })
	}
	if set {
		if err := n.SetTierPolicy(cmd.Context(), now.Policy); err != nil {
			return err
		}
		// What is shown is what the store has made of it, defaults filled in.
		if now, err = n.TierPolicy(cmd.Context()); err != nil {
			return err
		}
	}
	return printOne(cmd, o.json, now, func(w io.Writer) error { return showTierPolicy(w, now) })
}

func showTierPlan(w io.Writer, plan store.TierPlan) error {
	_, err := fmt.Fprintf(w, "would move %s to the cold tier\n", size(plan.Demote))
	for _, why := range plan.Why {
		if err == nil {
			_, err = fmt.Fprintf(w, "  %s\n", why)
		}
	}
	return err
}

func showTierPolicy(w io.Writer, now remote.TierPolicy) error {
	p, k := now.Policy, now.Manager
	if !p.On() {
		_, err := fmt.Fprintln(w, "Nothing is moved automatically, and the hot tier has no limit.")
		return err
	}
	hours := "at any time"
	if p.Hours != "" {
		hours = "between " + strings.Replace(p.Hours, "-", " and ", 1)
	}
	if p.Paused {
		hours = "paused"
	}
	fmt.Fprintf(w, "hot tier: at most %s; from %d %% on the coldest blocks leave, down to %d %%\n", size(p.Limit), p.High, p.Low)
	fmt.Fprintf(w, "blocks stay for %s; two uses within %s bring one back\n", inUnits(time.Duration(max(0, p.MinAge))*time.Second), inUnits(time.Duration(p.Window)*time.Second))
	fmt.Fprintf(w, "moving: %s a second, %s\n", size(p.Rate), hours)
	// A store that nobody has mounted moves nothing, whatever its policy says.
	if k.State == "off" {
		_, err := fmt.Fprintln(w, "now: nothing is moved; that starts when the store is mounted")
		return err
	}
	_, err := fmt.Fprintf(w, "now: %s; %s\nmoved since the mount: %s (%s) to the cold tier, %s (%s) back; %s waiting\n", k.State, printable(strings.Join(k.Why, "; ")),
		amount(k.Demoted.Blocks, "block"), size(k.Demoted.From), amount(k.Promoted.Blocks, "block"), size(k.Promoted.From), humanize.Comma(int64(k.Wanted)))
	if err == nil && k.Fault != "" {
		_, err = fmt.Fprintf(w, "fault: %s\n", printable(k.Fault))
	}
	return err
}

func newTierPin() *cobra.Command {
	return &cobra.Command{
		Use:     "pin [STORE] PATH...",
		Short:   "Keep files, or directories with all below, in the hot tier",
		Example: `  quarxfs tier pin /mnt projects/site`,
		Long: `Brings the blocks of files, and of all files in directories, into the hot tier, where they
stay until unpin. A pin is the extended attribute user.quarxfs.pinned of the file or
directory, so it follows renames.

` + pathRule,
		RunE: func(cmd *cobra.Command, args []string) error { return pin(cmd, args, false) },
	}
}

func newTierUnpin() *cobra.Command {
	return &cobra.Command{
		Use:     "unpin [STORE] PATH...",
		Short:   "Let pinned files and directories be moved again",
		Example: `  quarxfs tier unpin /mnt projects/site`,
		RunE:    func(cmd *cobra.Command, args []string) error { return pin(cmd, args, true) },
	}
}

func pin(cmd *cobra.Command, args []string, off bool) error {
	a, err := findStoreOf(cmd, args)
	if err != nil {
		return err
	}
	did := "pinned"
	if off {
		did = "unpinned"
	}
	return a.runFlushed(cmd.Context(), func(n remote.Node) error {
		var done []string
		left := eachName(cmd, did, args[1:], func(arg string) error {
			path, err := a.treePath(cmd.Context(), arg, false)
			if err == nil {
				err = n.Pin(cmd.Context(), remote.PinRequest{Off: off, Paths: []string{path}})
			}
			if err == nil {
				done = append(done, path)
			}
			return err
		})
		if off || len(done) == 0 {
			return left
		}
		// The pins first, which keep the tier manager from what is moved now.
		return errors.Join(left, n.Shift(cmd.Context(), remote.ShiftRequest{To: "hot", Paths: done}, func(remote.Shift) error { return nil }))
	})
}
