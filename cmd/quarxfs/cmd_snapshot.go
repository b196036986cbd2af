package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

func newSnapshot() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "snapshot",
		Aliases: []string{"snap"},
		Short:   "Make, compare, restore and remove snapshots",
		Long: `A snapshot is the whole filesystem at one point in time. It takes only the space of
what changed since the one before. On a mount, .snapshots/NAME shows what is in it; ls does
not list .snapshots, and mkdir and rmdir there make and remove snapshots.`,
	}
	for _, c := range []*cobra.Command{
		newSnapshotCreate(), newSnapshotList(), newSnapshotShow(), newSnapshotRm(), newSnapshotRename(), newSnapshotHold(true),
		newSnapshotHold(false), newSnapshotDiff(), newSnapshotClone(), newSnapshotRestore(), newSnapshotRollback(), newSnapshotPrune(), newSnapshotPolicy(),
	} {
		cmd.AddCommand(c)
	}
	return cmd
}

func newSnapshotCreate() *cobra.Command {
	var n remote.NewSnapshot
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create [STORE] [NAME]",
		Short: "Make a snapshot",
		Long: `Makes a snapshot of all that was written before; programs go on writing meanwhile. Without
NAME it is called after the time. A name is a file name without colons.`,
		Example: `  quarxfs snapshot create /mnt monday -m "before the upgrade"
  quarxfs snapshot create /srv/store --tag nightly`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				n.Name = args[1]
			}
			n.Host = hostname()
			line := newProgress(cmd.ErrOrStderr(), asJSON)
			// Counting costs the node an answer now and then, so it is asked only where it is seen.
			if line.w != nil {
				n.Progress = func(looked int64) { line.show("%s files and directories looked at", humanize.Comma(looked)) }
			}
			// Before the first count comes: the kernel may have gigabytes to hand over.
			line.show("taking in what was written")
			defer line.clear()
			return onStore(cmd, args[:1], func(node remote.Node) error {
				s, err := node.CreateSnapshot(cmd.Context(), n)
				line.clear()
				if err != nil {
					return err
				}
				if err := warnOfAlarm(cmd, node, s.Name); err != nil {
					return err
				}
				return printOne(cmd, asJSON, s, func(w io.Writer) error {
					t := s.Totals
					which := "of it new"
					// Files that were flushed while they were written have had some blocks more.
					if t.New > t.Written && size(t.New) != size(t.Written) {
						which = "new, objects and what was removed again among them"
					}
					_, err := fmt.Fprintf(w, "%s: %s, %s; %s written, %s %s\n", printable(s.Name),
						amount(t.Files, "file"), size(t.Logical), size(t.Written), size(t.New), which)
					return err
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&n.Message, "message", "m", "", "`text` to keep with it")
	listVar(f, &n.Tags, "tag", "", "`tags` to keep with it, for prune")
	jsonFlag(f, &asJSON)
	return cmd
}

// warnOfAlarm says so when a snapshot looks as if its files had been encrypted.
func warnOfAlarm(cmd *cobra.Command, n remote.Node, name string) error {
	return n.History(cmd.Context(), func(p graph.HistoryPoint) error {
		if p.Name == name && p.Alarm != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "quarxfs: warning: %s: %s\n", printable(name), p.Alarm)
		}
		return nil
	})
}

func newSnapshotList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list [STORE]",
		Short:   "List the snapshots, the oldest first",
		Example: `  quarxfs snapshot list /mnt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args, func(n remote.Node) error { return listSnapshots(cmd, n, asJSON) })
		},
	}
	jsonLinesFlag(cmd.Flags(), &asJSON)
	return cmd
}

func listSnapshots(cmd *cobra.Command, n remote.Node, asJSON bool) error {
	out := cmd.OutOrStdout()
	list := func(fn func(remote.Snapshot) error) error { return n.ListSnapshots(cmd.Context(), fn) }
	if asJSON {
		return printLines(out, true, nil, list)
	}
	t := newTable("", text.AlignLeft, text.AlignLeft, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignLeft)
	t.AppendHeader(table.Row{"Snapshot", "Made", "Files", "Bytes", "New", "About"})
	err := list(func(s remote.Snapshot) error {
		if s.Fault != "" {
			t.AppendRow(table.Row{printable(s.Name), "?", "?", "?", "?", about(s)})
			return nil
		}
		t.AppendRow(table.Row{printable(s.Name), s.Created.Local().Format("2006-01-02 15:04:05"), humanize.Comma(s.Totals.Files),
			size(s.Totals.Logical), size(s.Totals.New), about(s)})
		return nil
	})
	if err != nil {
		return err
	}
	return printList(out, t, "snapshots")
}

// about says in a few words what else there is to say of a snapshot.
func about(s remote.Snapshot) string {
	var parts []string
	if s.Held {
		parts = append(parts, heldHow(s))
	}
	for _, tag := range s.Tags {
		parts = append(parts, "#"+printable(tag))
	}
	if s.Message != "" {
		parts = append(parts, printable(strings.SplitN(s.Message, "\n", 2)[0]))
	}
	if s.Fault != "" {
		parts = append(parts, cannotBeRead(s.Fault))
	}
	return strings.Join(parts, " ")
}

// heldHow says whether a snapshot is held, and until when it is locked.
func heldHow(s remote.Snapshot) string {
	switch {
	case !s.Held:
		return "no"
	case s.Until.IsZero():
		return "held"
	}
	return "locked until " + s.Until.Local().Format("2006-01-02 15:04")
}

// cannotBeRead says why nothing but the name of a snapshot is known.
func cannotBeRead(fault string) string { return "cannot be read: " + printable(fault) }

func newSnapshotShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show [STORE] SNAPSHOT",
		Short:   "Show all about a snapshot",
		Example: `  quarxfs snapshot show /mnt monday`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args[:1], func(n remote.Node) error {
				s, err := n.GetSnapshot(cmd.Context(), args[1])
				if err != nil {
					return err
				}
				return printOne(cmd, asJSON, s, func(w io.Writer) error { return showSnapshot(w, s) })
			})
		},
	}
	jsonFlag(cmd.Flags(), &asJSON)
	return cmd
}

func showSnapshot(w io.Writer, s remote.Snapshot) error {
	t := s.Totals
	lines := [][2]string{
		{"name", printable(s.Name)}, {"id", s.ID.String()}, {"made", s.Created.Local().Format("2006-01-02 15:04:05.000 -0700")},
		{"host", printable(s.Host)}, {"tags", printable(strings.Join(s.Tags, ", "))}, {"held", heldHow(s)}, {"message", printable(s.Message)},
		{"files", humanize.Comma(t.Files)}, {"directories", humanize.Comma(t.Dirs)}, {"others", humanize.Comma(t.Others)},
		{"bytes", size(t.Logical)}, {"without holes", size(t.Data)}, {"written since the one before", size(t.Written)},
		{"new", fmt.Sprintf("%s, stored in %s", size(t.New), size(t.NewStored))},
	}
	if s.Fault != "" {
		lines = [][2]string{{"name", printable(s.Name)}, {"id", s.ID.String()}, {"held", heldHow(s)}, {"damage", cannotBeRead(s.Fault)}}
	}
	for _, p := range s.Parents {
		lines = append(lines, [2]string{"made from", p.String()})
	}
	for _, l := range lines {
		// Most snapshots have neither tags nor a message.
		if l[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-29s %s\n", l[0], l[1]); err != nil {
			return err
		}
	}
	return nil
}

// eachSnapshot makes a command that does the same to each of the snapshots named. did says so.
func eachSnapshot(use, did, short, long string, do func(context.Context, remote.Node, string) error) *cobra.Command {
	return &cobra.Command{
		Use:     use + " [STORE] SNAPSHOT...",
		Short:   short,
		Example: "  quarxfs snapshot " + use + " /mnt monday tuesday",
		Long:    long,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args[:1], func(n remote.Node) error {
				return eachName(cmd, did, args[1:], func(name string) error { return do(cmd.Context(), n, name) })
			})
		},
	}
}

func newSnapshotRm() *cobra.Command {
	return eachSnapshot("rm", "removed", "Remove snapshots",
		"Removes snapshots. What nothing else needs is reclaimed in the background, or at once by gc.",
		func(ctx context.Context, n remote.Node, name string) error { return n.RemoveSnapshot(ctx, name) })
}

func newSnapshotRename() *cobra.Command {
	return &cobra.Command{
		Use:     "rename [STORE] SNAPSHOT NAME",
		Short:   "Give a snapshot another name",
		Example: `  quarxfs snapshot rename /mnt monday before-upgrade`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args[:1], func(n remote.Node) error {
				return n.EditSnapshot(cmd.Context(), args[1], remote.SnapshotEdit{Name: &args[2]})
			})
		},
	}
}

func newSnapshotHold(held bool) *cobra.Command {
	use, did, short := "hold", "held", "Keep snapshots from being removed"
	if !held {
		use, did, short = "release", "released", "Let snapshots be removed again"
	}
	edit, until := remote.SnapshotEdit{Held: &held}, ""
	cmd := eachSnapshot(use, did, short, "", func(ctx context.Context, n remote.Node, name string) error {
		return n.EditSnapshot(ctx, name, edit)
	})
	if !held {
		return cmd
	}
	cmd.Long = `Keeps snapshots from being removed until they are released. With --until nobody can release
or remove them before that time, and then they are released by themselves. The time can be put
off, and not brought forward.`
	cmd.Flags().StringVar(&until, "until", "", "until this `date`, such as 2030-12-31 or 2030-12-31T18:00, or for a time, such as 30d")
	cmd.PreRunE = func(*cobra.Command, []string) (err error) {
		if until != "" {
			edit.Held = nil
			edit.Until, err = parseDate(until, time.Now())
		}
		// The zero time would ask for nothing, and be told as held.
		if err == nil && until != "" && edit.Until.IsZero() {
			err = fmt.Errorf("%w: --until %s is not to come", errUsage, until)
		}
		return err
	}
	return cmd
}

// parseDate reads a date, with the time of the day or as its first instant, or a time from now.
func parseDate(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04", time.DateTime, time.RFC3339} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	d, err := parseTime(text)
	if err != nil {
		return now, fmt.Errorf("%w: --until %s: give a date such as 2030-12-31 or 2030-12-31T18:00, or a time such as 30d", errUsage, text)
	}
	return now.Add(d), nil
}

// splitSnapshotPath splits SNAPSHOT[:PATH].
func splitSnapshotPath(arg string) (snapshot, path string) {
	snapshot, path, _ = strings.Cut(arg, ":")
	return snapshot, strings.Trim(path, "/")
}

// A cloneOptions is what the commands that bring back what is in a snapshot are told.
type cloneOptions struct {
	remote.CloneRequest
	done string // what the command says to have done
	json bool
}

func (o *cloneOptions) run(cmd *cobra.Command, args []string) error {
	// By STORE and the target; the snapshot between them is no path of this machine.
	a, err := findStoreOf(cmd, []string{args[0], args[2]})
	if err != nil {
		return err
	}
	o.Host = hostname()
	o.Snapshot, o.Path = splitSnapshotPath(args[1])
	if o.To, err = a.treePath(cmd.Context(), args[2], true); err != nil {
		return err
	}
	return a.run(cmd.Context(), func(n remote.Node) error {
		done, err := n.Clone(cmd.Context(), o.CloneRequest)
		// Of a restore that is refused because of kinds only: a clone never takes the place of
		// anything.
		if errors.Is(err, store.ErrNameTaken) && o.Replace {
			return fmt.Errorf("%w: %w", err, errReplaceable)
		}
		if errors.Is(err, store.ErrNotFound) {
			err = hintOrder(cmd, n, args, err)
		}
		if err != nil {
			return err
		}
		return printOne(cmd, o.json, done, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s to %s in the store\n", o.done, printable(done.To))
			if err == nil && done.Safety != "" {
				_, err = fmt.Fprintf(w, "what was there is in snapshot %s\n", printable(done.Safety))
			}
			return err
		})
	})
}

// keepPrivilegesFlag and keepPrivilegesRule are of all commands that bring back what a snapshot
// has.
func keepPrivilegesFlag(f *pflag.FlagSet, to *bool) {
	f.BoolVar(to, "keep-privileges", false, "keep set-user-ID bits, devices and security.* of another store's snapshot")
}

const keepPrivilegesRule = `From a snapshot that a sync has brought, files come back without set-user-ID and set-group-ID
bits and security.* attributes, and devices are root's and have no permissions, unless
--keep-privileges is given. Looking for them takes a walk of its directories.`

func newSnapshotClone() *cobra.Command {
	o := &cloneOptions{done: "cloned"}
	cmd := &cobra.Command{
		Use:   "clone [STORE] SNAPSHOT[:PATH] NEWPATH",
		Short: "Make a writable copy of what is in a snapshot",
		Long: `Makes NEWPATH, which must not exist, a writable copy of a snapshot or of PATH in it. It
shares all bytes with the snapshot and takes the same time whatever its size.

SNAPSHOT:PATH is from the top of the snapshot. ` + newPathRule + "\n\n" + keepPrivilegesRule,
		Example: `  quarxfs snapshot clone /mnt monday:projects/site /mnt/site-of-monday
  quarxfs snapshot clone /srv/store monday all-of-monday`,
		RunE: o.run,
	}
	keepPrivilegesFlag(cmd.Flags(), &o.KeepPrivileges)
	jsonFlag(cmd.Flags(), &o.json)
	return cmd
}

func newSnapshotRestore() *cobra.Command {
	o := &cloneOptions{done: "restored", CloneRequest: remote.CloneRequest{Replace: true}}
	cmd := &cobra.Command{
		Use:   "restore [STORE] SNAPSHOT[:PATH] TARGET",
		Short: "Bring a file or directory back from a snapshot",
		Long: `Replaces TARGET by what is in a snapshot, in one step. If anything is there, the current
state of the filesystem is saved as a snapshot first, as rollback does. A directory replaces
only a directory, and a file only a file, unless --replace is given.

SNAPSHOT:PATH is from the top of the snapshot. ` + newPathRule + "\n\n" + keepPrivilegesRule,
		Example: `  quarxfs snapshot restore /mnt monday:docs/thesis.tex /mnt/docs/thesis.tex`,
		RunE:    o.run,
	}
	cmd.Flags().BoolVar(&o.AnyKind, "replace", false, "replace a directory by a file, or a file by a directory")
	keepPrivilegesFlag(cmd.Flags(), &o.KeepPrivileges)
	cmd.Flags().BoolVar(&o.NoSafety, "no-safety", false, "make no snapshot of what is there now")
	jsonFlag(cmd.Flags(), &o.json)
	return cmd
}

func newSnapshotRollback() *cobra.Command {
	var asJSON, noSafety, keep bool
	cmd := &cobra.Command{
		Use:     "rollback [STORE] SNAPSHOT",
		Short:   "Return the whole filesystem to a snapshot",
		Example: `  quarxfs snapshot rollback /mnt monday`,
		Long: `Returns the filesystem to a snapshot in one step, whatever its size; it may stay mounted.
Programs that have files open keep the old ones. The current state is saved as a
snapshot first.

` + keepPrivilegesRule,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args[:1], func(n remote.Node) error {
				done, err := n.Rollback(cmd.Context(), remote.RollbackRequest{Snapshot: args[1], NoSafety: noSafety, Host: hostname(), KeepPrivileges: keep})
				if err != nil {
					return err
				}
				return printOne(cmd, asJSON, done, func(w io.Writer) error {
					// The name is all that is needed to undo the rollback.
					if done.Safety == "" {
						return nil
					}
					_, err := fmt.Fprintf(w, "what was there is in snapshot %s\n", done.Safety)
					return err
				})
			})
		},
	}
	keepPrivilegesFlag(cmd.Flags(), &keep)
	cmd.Flags().BoolVar(&noSafety, "no-safety", false, "make no snapshot of what is there now")
	jsonFlag(cmd.Flags(), &asJSON)
	return cmd
}

// hintOrder adds to the error for a snapshot that there is none of what may have been meant: the
// other argument names one.
func hintOrder(cmd *cobra.Command, n remote.Node, args []string, err error) error {
	first, _ := splitSnapshotPath(args[1])
	// The first is a snapshot: then a path in it is what was not found.
	if _, ferr := n.GetSnapshot(cmd.Context(), first); !errors.Is(ferr, store.ErrNotFound) {
		return err
	}
	second, _ := splitSnapshotPath(args[2])
	if _, serr := n.GetSnapshot(cmd.Context(), second); serr == nil {
		right := []string{args[2], args[1]}
		if args[0] != "" {
			right = append([]string{args[0]}, right...)
		}
		return fmt.Errorf("%w, but %q is one: do you mean %s?", err, second, strings.Join(append([]string{cmd.CommandPath()}, quoted(right)...), " "))
	}
	return fmt.Errorf("%w; see quarxfs snapshot list", err)
}
