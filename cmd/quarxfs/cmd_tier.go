package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/tiering/s3"
)

func newTier() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tier",
		Short: "Keep what is rarely read on another disk",
		Long: `A store has a hot tier, in its own directory, and may have a cold tier: a directory on
another disk. New blocks are hot. What you demote is packed densely with zstd in the
cold tier and read from there; names, attributes and the graph stay hot. A policy can move
blocks by how often they are used, and paths can be pinned to the hot tier. Equal blocks
are stored once, whatever tier they are in, so a block that a demoted file shares with
others is cold for all of them.`,
	}
	for _, c := range []*cobra.Command{
		newTierAdd(), newTierRelocate(), newTierRemove(), newTierList(), newTierStatus(), newTierMove("demote", "cold"), newTierMove("promote", "hot"), newTierDrain(),
		newTierPolicy(), newTierPin(), newTierUnpin(),
	} {
		cmd.AddCommand(c)
	}
	return cmd
}

// onlyCold refuses to manage any other tier.
func onlyCold(name string) error {
	if name != "cold" {
		return fmt.Errorf("%w: tier %q: only the cold tier can be added and removed", errUsage, name)
	}
	return nil
}

func newTierAdd() *cobra.Command {
	server := store.S3Server{}
	cmd := &cobra.Command{
		Use:   "add [STORE] cold DIR|s3://BUCKET/PREFIX",
		Short: "Make a directory or an S3 bucket the store's cold tier",
		Long: `Makes DIR, which must be empty or missing and should be on another disk, the store's
cold tier. A small file in it, quarxfs-tier, tells it from an empty mountpoint. While
that file cannot be read, the tier is out of reach and reading what is in it gives EIO.

A cold tier may also be in a bucket of an S3 server, below a PREFIX that has no objects.
The keys come from QUARXFS_S3_ACCESS_KEY_ID and QUARXFS_S3_SECRET_ACCESS_KEY, or the same
with AWS_, in the environment of the process that has the store open (of quarxfs mount, when it
is mounted), or from a file in the format of ~/.aws/credentials that only its owner may read.`,
		Example: `  quarxfs tier add /srv/store cold /bulk/cold
  quarxfs tier add /srv/store cold s3://bucket/store --endpoint https://s3.example.com --credentials /etc/quarxfs-keys`,
		RunE: onColdTier(&server, addCold),
	}
	serverFlags(cmd.Flags(), &server)
	return cmd
}

// addCold adds one. If it cannot be reached: there is no cold tier yet that could be elsewhere.
func addCold(n remote.Node, ctx context.Context, dir string, bucket *store.S3Server) error {
	err := n.AddCold(ctx, dir, bucket)
	if errors.Is(err, store.ErrUnavailable) {
		return fmt.Errorf("%w: %w", err, errNotAdded)
	}
	return err
}

// serverFlags are those that say on what server a bucket is.
func serverFlags(f *pflag.FlagSet, server *store.S3Server) {
	f.StringVar(&server.Endpoint, "endpoint", "https://s3.amazonaws.com", "URL of the S3 server")
	f.StringVar(&server.Region, "region", "", "region of the bucket; the server is asked when it is not given")
	f.StringVar(&server.Credentials, "credentials", "", "`file` with the keys; else they are in the environment")
	f.StringVar(&server.CA, "ca", "", "`file` with certificates to trust besides the system's")
	f.BoolVar(&server.Insecure, "insecure", false, "do not check the server's certificate")
}

func newTierRelocate() *cobra.Command {
	server := store.S3Server{}
	cmd := &cobra.Command{
		Use:   "relocate [STORE] cold DIR|s3://BUCKET/PREFIX",
		Short: "Tell the store where its cold tier is now",
		Long: `Has the store look for its cold tier in DIR, after the tier was moved or copied there, or
its disk is mounted elsewhere. If DIR lacks the tier's marker or a segment that the store
needs, nothing changes. Nothing is copied. The old directory is no longer used and can be
removed.

A tier in a bucket can be in another bucket or on another server, with the same objects.`,
		Example: `  quarxfs tier relocate /srv/store cold /new/cold
  quarxfs tier relocate /mnt cold s3://bucket/store --endpoint https://s3.example.net`,
		RunE: onColdTier(&server, remote.Node.RelocateCold),
	}
	serverFlags(cmd.Flags(), &server)
	return cmd
}

// onColdTier runs do with what the arguments [STORE] cold TARGET and the flags of a server give.
func onColdTier(server *store.S3Server, do func(n remote.Node, ctx context.Context, dir string, bucket *store.S3Server) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := onlyCold(args[1]); err != nil {
			return err
		}
		// Paths are made absolute here: the daemon stands in another directory.
		dir, bucket, err := coldTarget(cmd, args[2], *server)
		if err != nil {
			return err
		}
		return onStore(cmd, args, func(n remote.Node) error { return do(n, cmd.Context(), dir, bucket) })
	}
}

// coldTarget returns where a cold tier is to be, with absolute paths, since the
// daemon has a working directory of its own.
func coldTarget(cmd *cobra.Command, arg string, server store.S3Server) (dir string, bucket *store.S3Server, err error) {
	if !s3.IsURL(arg) {
		for _, name := range []string{"endpoint", "region", "credentials", "ca", "insecure"} {
			if cmd.Flags().Changed(name) {
				return "", nil, fmt.Errorf("%w: --%s is for s3://bucket/prefix, and %s is a directory", errUsage, name, arg)
			}
		}
		// Inside a mount each move would write to the store that it moves blocks out of.
		if dir, err = mounts.Abs(arg); err == nil {
			err = notNested(cmd.Context(), dir)
		}
		return dir, nil, err
	}
	for _, file := range []*string{&server.Credentials, &server.CA} {
		if *file != "" && err == nil {
			*file, err = mounts.Abs(*file)
		}
	}
	return arg, &server, err
}

func newTierRemove() *cobra.Command {
	return &cobra.Command{
		Use:     "remove [STORE] cold",
		Short:   "Remove the cold tier; drain it first",
		Example: `  quarxfs tier remove /mnt cold`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := onlyCold(args[1]); err != nil {
				return err
			}
			return onStore(cmd, args, func(n remote.Node) error { return n.RemoveCold(cmd.Context()) })
		},
	}
}

func newTierList() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:     "list [STORE]",
		Short:   "List a store's tiers",
		Example: "  quarxfs tier list /mnt",
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args, func(n remote.Node) error {
				list, err := n.Tiers(cmd.Context())
				if err != nil {
					return err
				}
				// The same states as in tier status, a line each.
				if asJSON {
					return printLines(cmd.OutOrStdout(), true, nil, func(fn func(store.TierState) error) error { return each(list, fn) })
				}
				t := newTable("", text.AlignLeft, text.AlignLeft, text.AlignLeft)
				t.AppendHeader(table.Row{"Tier", "State", "Directory"})
				for _, s := range list {
					t.AppendRow(table.Row{s.Name, reach(s), printable(s.Dir)})
				}
				return printTable(cmd.OutOrStdout(), t)
			})
		},
	}
	jsonLinesFlag(cmd.Flags(), &asJSON)
	return cmd
}

// A tierStatus is what tier status tells.
type tierStatus struct {
	Cache  store.CacheStats  `json:"cache"`
	Tiers  []store.TierState `json:"tiers"`
	Wanted int               `json:"wanted_blocks"` // cold ones that were used again and wait for their move
}

func readTierStatus(ctx context.Context, n remote.Node) (st tierStatus, err error) {
	if st.Tiers, err = n.Tiers(ctx); err != nil {
		return st, err
	}
	all, err := n.Stats(ctx)
	st.Cache, st.Wanted = all.Cache, all.Wanted
	return st, err
}

func newTierStatus() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:     "status [STORE]",
		Short:   "Show what a store's tiers hold and what they did",
		Example: "  quarxfs tier status /mnt",
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args, func(n remote.Node) error {
				st, err := readTierStatus(cmd.Context(), n)
				if err != nil {
					return err
				}
				if asJSON {
					return rawjson.Write(cmd.OutOrStdout(), st)
				}
				return showTierStatus(cmd.OutOrStdout(), st)
			})
		},
	}
	jsonFlag(cmd.Flags(), &asJSON)
	cmd.Long = `Shows what a store's tiers hold, what they did since the store was mounted, and how long reads
took. When blocks have been read, it also says what share of the reads a RAM tier of another size
would have hit. Under a policy it says the same of the hot tier, for the reads that RAM missed.`
	return cmd
}

func showTierStatus(w io.Writer, st tierStatus) error {
	t := newTable("", text.AlignLeft, text.AlignLeft, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight,
		text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight)
	t.AppendHeader(table.Row{"Tier", "State", "In use", "On disk", "Segments", "Reads", "Read", "p50", "p95", "p99", "Writes", "Written"})
	for _, s := range st.Tiers {
		t.AppendRow(table.Row{s.Name, reach(s), size(s.Live), size(s.Bytes), humanize.Comma(int64(s.Segments)),
			humanize.Comma(int64(s.Reads)), size(int64(s.BytesRead)), took(s.ReadTime, s.ReadTime.P50), took(s.ReadTime, s.ReadTime.P95), took(s.ReadTime, s.ReadTime.P99),
			humanize.Comma(int64(s.Writes)), size(int64(s.BytesWritten))})
	}
	if err := printTable(w, t); err != nil {
		return err
	}
	c := st.Cache
	fmt.Fprintf(w, "RAM: %s of %s, %.1f %% of %s reads hit\n", size(c.Bytes), size(c.Limit), 100*c.HitRatio, humanize.Comma(int64(c.Hits+c.Misses)))
	if st.Wanted > 0 {
		fmt.Fprintf(w, "waiting to come back: %s\n", amount(int64(st.Wanted), "cold block"))
	}
	for _, s := range st.Tiers {
		if s.Unsealed > 0 {
			fmt.Fprintf(w, "%s: %s waiting to be closed or uploaded\n", s.Name, amount(int64(s.Unsealed), "segment"))
		}
		for _, p := range s.Pinned {
			fmt.Fprintf(w, "pinned: %s\n", printable(p))
		}
		if s.Fault != "" {
			fmt.Fprintf(w, "%s: %s\n", s.Name, printable(s.Fault))
		}
	}
	return showCurves(w, st)
}

// took shows a percentile of what was timed.
func took(of store.Latency, percentile float64) string {
	if of.Count == 0 {
		return "-"
	}
	return ms(percentile)
}

// showCurves says what other sizes would have hit, where that is known.
func showCurves(w io.Writer, st tierStatus) error {
	t := newTable("", text.AlignLeft, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight)
	t.AppendHeader(table.Row{"Would hit", "Size", "Half", "Same", "2x", "4x", "8x"})
	row := func(name string, curve []store.CurvePoint) {
		if len(curve) == 0 {
			return
		}
		// The second point of a curve is the size as it is.
		r := table.Row{name, size(curve[1].Bytes)}
		for _, p := range curve {
			r = append(r, fmt.Sprintf("%.1f %%", 100*p.HitRatio))
		}
		t.AppendRow(r)
	}
	row("RAM", st.Cache.Curve)
	for _, s := range st.Tiers {
		row(s.Name, s.Curve)
	}
	if t.Length() == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return printTable(w, t)
}

func reach(s store.TierState) string {
	if s.Fault != "" {
		return "out of reach"
	}
	return "in reach"
}

type tierMoveOptions struct {
	remote.ShiftRequest
	rate byteSize
	json bool
}

func newTierMove(verb, to string) *cobra.Command {
	o := &tierMoveOptions{ShiftRequest: remote.ShiftRequest{To: to}}
	cmd := &cobra.Command{
		Use:   verb + " [STORE] PATH...",
		Short: fmt.Sprintf("Move files' blocks into the %s tier", to),
		Long: fmt.Sprintf(`Moves the blocks of files, and of all files in directories, into the %s tier.
A crash at any moment leaves each block in one tier or the other.

`, to) + pathRule,
		Example: fmt.Sprintf("  quarxfs tier %s /mnt images/2023 --dry-run", verb),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := findStoreOf(cmd, args)
			if err != nil {
				return err
			}
			return o.run(cmd, a, args[1:])
		},
	}
	o.flags(cmd)
	return cmd
}

func newTierDrain() *cobra.Command {
	o := &tierMoveOptions{ShiftRequest: remote.ShiftRequest{To: "hot", Drain: true}}
	cmd := &cobra.Command{
		Use:     "drain [STORE] cold",
		Short:   "Bring all that is in the cold tier back",
		Example: `  quarxfs tier drain /mnt cold`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// The only tier there is to drain, and still named, as the command takes everything out
			// of it.
			if err := onlyCold(args[1]); err != nil {
				return err
			}
			a, err := findStore(cmd, args)
			if err != nil {
				return err
			}
			return o.run(cmd, a, nil)
		},
	}
	o.flags(cmd)
	return cmd
}

func (o *tierMoveOptions) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&o.DryRun, "dry-run", "n", false, "only say what would be moved")
	rateVar(cmd.Flags(), &o.rate, "rate", "most bytes read a second, such as 20MiB; 0: no limit")
	jsonFlag(cmd.Flags(), &o.json)
}

// run moves what is below the paths that arguments name, or drains the tier.
func (o *tierMoveOptions) run(cmd *cobra.Command, a access, args []string) error {
	o.Rate = int64(o.rate)
	line := newProgress(cmd.ErrOrStderr(), o.json)
	var last remote.Shift
	var left error // of the first path that cannot be moved
	// What the kernel holds back has no blocks yet that could be moved.
	err := a.runFlushed(cmd.Context(), func(n remote.Node) error {
		// All that are there in one move, as they may share blocks.
		o.Paths, left = a.pathsThere(cmd, n, args)
		if len(o.Paths) == 0 && !o.Drain {
			return left
		}
		return n.Shift(cmd.Context(), o.ShiftRequest, func(s remote.Shift) error {
			last = s
			line.show("moved %s", size(s.Moved.From))
			return nil
		})
	})
	line.clear()
	if err != nil {
		return err
	}
	if o.json {
		return errors.Join(left, rawjson.Write(cmd.OutOrStdout(), last))
	}
	return errors.Join(left, o.show(cmd.OutOrStdout(), last))
}

func (o *tierMoveOptions) show(out io.Writer, last remote.Shift) error {
	p, m := last.Plan, last.Moved
	// A drain knows blocks only as they are stored: how large they will be is seen when they are
	// read.
	if o.DryRun && o.Drain {
		fmt.Fprintf(out, "would move %s, %s as stored in the cold tier\n", amount(p.Blocks, "block"), size(p.Bytes))
		return nil
	}
	if o.DryRun {
		fmt.Fprintf(out, "would move %s, %s; %s already in the %s tier", amount(p.Blocks, "block"), size(p.Bytes), humanize.Comma(p.There), o.To)
		fmt.Fprintf(out, ", %s and %s stay hot, %s lost\n",
			amount(p.Vertices, "vertex"), amount(p.Pinned, "pinned block"), humanize.Comma(p.Missing))
		return nil
	}
	fmt.Fprintf(out, "%s moved to the %s tier: %s became %s; %s removed\n",
		amount(m.Blocks, "block"), o.To, size(m.From), size(m.To), amount(m.Segments, "segment"))
	if m.Unreadable > 0 {
		fmt.Fprintf(out, "unreadable, and not moved: %s; see quarxfs scrub\n", amount(m.Unreadable, "block"))
	}
	return nil
}
