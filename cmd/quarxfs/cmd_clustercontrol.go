package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/store/routine"
)

// followEvery is how often a command that waits for copies asks again.
const followEvery = time.Second

func newClusterDrain() *cobra.Command {
	var dir string
	var wait bool
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Move a node's copies elsewhere, so that it may leave",
		Long: `Has NODE give up what it keeps for others, and take nothing new: for each copy another one is
made first, and only when that is whole is the one on NODE taken out. A volume that is written on NODE
stays there until another node has taken it over.

It goes on after the command has ended; quarxfs cluster undrain NODE calls it off. With --wait the
command follows it, and ends with exit code 4 if only what must be taken over by hand is left.`,
		Example: "  quarxfs cluster drain n3 --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			agent := client.Local(dir)
			d, err := agent.Drain(cmd.Context(), args[0], true)
			if err != nil {
				return err
			}
			printDrain(cmd.OutOrStdout(), d)
			if !wait || len(d.Copies) == 0 {
				return nil
			}
			return followDrain(cmd, agent, d)
		},
	}
	nodeDir(cmd.Flags(), &dir)
	cmd.Flags().BoolVar(&wait, "wait", false, "follow it until nothing is left there")
	return cmd
}

func printDrain(w io.Writer, d client.Drain) {
	if len(d.Copies) == 0 {
		fmt.Fprintf(w, "%s has no copies, and gets none: it may leave\n", d.Node)
		return
	}
	if d.Held != "" {
		fmt.Fprintf(w, "nothing is moved now: %s\n", d.Held)
	}
	for _, l := range d.Copies {
		fmt.Fprintln(w, leftLine(d.Node, l))
	}
}

func leftLine(node string, l client.Left) string {
	switch {
	case l.Why != "":
		return fmt.Sprintf("%s stays on %s: %s", l.Volume, node, l.Why)
	case l.To != "":
		return fmt.Sprintf("%s: %s -> %s", l.Volume, node, l.To)
	}
	return fmt.Sprintf("%s: enough copies are elsewhere", l.Volume)
}

// followDrain says what has gone until nothing is left that goes by itself.
func followDrain(cmd *cobra.Command, agent *client.Agent, d client.Drain) error {
	left := d.Copies
	for {
		if err := routine.Sleep(cmd.Context(), followEvery); err != nil {
			return err
		}
		now, err := agent.Drained(cmd.Context(), d.Node)
		if errors.Is(err, client.ErrNoQuorum) {
			continue // what was begun goes on as soon as there is one
		}
		if err != nil {
			return err
		}
		for _, l := range left {
			if !slices.ContainsFunc(now.Copies, func(o client.Left) bool { return o.Volume == l.Volume }) {
				fmt.Fprintf(cmd.OutOrStdout(), "%s has left %s\n", l.Volume, d.Node)
			}
		}
		left = now.Copies
		var stay []string
		for _, l := range left {
			if l.Kind == "writer" {
				stay = append(stay, l.Volume)
			}
		}
		switch {
		case !now.Draining:
			return fmt.Errorf("%w: somebody has called it off", client.ErrHolds)
		case len(left) == 0:
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s has no copies any more: it may leave\n", d.Node)
			return err
		case len(stay) == len(left):
			return fmt.Errorf("%w: %s is written on %s: quarxfs cluster volume takeover on another node", client.ErrHolds, strings.Join(stay, ", "), d.Node)
		}
	}
}

func newClusterUndrain() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:     "undrain NODE",
		Short:   "Let a node keep and take copies again",
		Long:    `Calls off quarxfs cluster drain. Copies that have left NODE do not come back by themselves.`,
		Example: "  quarxfs cluster undrain n3",
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := client.Local(dir).Drain(cmd.Context(), args[0], false)
			return err
		},
	}
	nodeDir(cmd.Flags(), &dir)
	return cmd
}

func newClusterBalance() *cobra.Command {
	var dir string
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "balance",
		Short: "Even out how full the nodes' disks are",
		Long: `Moves copies from full disks to empty ones, and out of zones that have another copy, one by
one: the new copy is whole before the old one is taken out. It begins when the fullest and the emptiest
disk differ by a fifth of their size. When the command is interrupted, the move that was begun is
completed. Nothing is ever balanced by itself. --dry-run and --json only list the moves.`,
		Example: "  quarxfs cluster balance --dry-run",
		RunE: func(cmd *cobra.Command, _ []string) error {
			agent := client.Local(dir)
			if dryRun || asJSON {
				b, err := agent.Balance(cmd.Context(), true)
				if err != nil {
					return err
				}
				return printOne(cmd, asJSON, b, func(w io.Writer) error { return printMoves(w, b) })
			}
			return runBalance(cmd, agent)
		},
	}
	nodeDir(cmd.Flags(), &dir)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only list the moves")
	jsonFlag(cmd.Flags(), &asJSON)
	return cmd
}

func printMoves(w io.Writer, b client.Balance) error {
	if b.Held != "" {
		_, err := fmt.Fprintln(w, "nothing is moved now:", b.Held)
		return err
	}
	if len(b.Moves) == 0 {
		_, err := fmt.Fprintln(w, "The disks are even.")
		return err
	}
	t := newTable("", text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignRight, text.AlignLeft)
	t.AppendHeader(table.Row{"Volume", "From", "To", "Size", "Why"})
	for _, m := range b.Moves {
		t.AppendRow(table.Row{m.Volume, m.From, m.To, size(m.Bytes), m.Why})
	}
	finish(w, t)
	return nil
}

// runBalance has one move done after the other. Which is the next is decided anew each time, by how
// full the disks are then.
func runBalance(cmd *cobra.Command, agent *client.Agent) error {
	for moved := 0; ; {
		b, err := agent.Balance(cmd.Context(), false)
		switch {
		case err != nil:
			return err
		case b.Begun:
			m := b.Moves[0]
			moved++
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s -> %s, %s, as %s\n", m.Volume, m.From, m.To, size(m.Bytes), m.Why)
		case b.Held != "" && !b.Busy:
			return fmt.Errorf("%w: nothing is moved now: %s", client.ErrHolds, b.Held)
		case b.Held == "":
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "The disks are even, after %d moves.\n", moved)
			return err
		}
		if err := routine.Sleep(cmd.Context(), followEvery); err != nil {
			return err
		}
	}
}

func newClusterBlast() *cobra.Command {
	var dir string
	var q client.BlastRequest
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "blast [NODE...]",
		Short: "Show what would be lost with nodes",
		Long: `Shows what would be lost if all NODEs, or all nodes of zones, died with their disks: which
volumes would be gone, which would come back from a vault and how old, which would lack a copy, and what
it would take to repair that. It asks all nodes now; a copy that nobody can vouch for does not count.
--worst N finds the N nodes whose death together would lose the most.`,
		Example: "  quarxfs cluster blast n1 n2\n  quarxfs cluster blast --worst 2",
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.Nodes = args; len(args)+len(q.Zones)+q.Worst == 0 {
				return usageErrorf(cmd, "give NODE, --zone ZONE or --worst N")
			}
			b, err := client.Local(dir).Blast(cmd.Context(), q)
			if err != nil {
				return err
			}
			return printOne(cmd, asJSON, b, func(w io.Writer) error { printBlast(w, b); return nil })
		},
	}
	f := cmd.Flags()
	nodeDir(f, &dir)
	listVar(f, &q.Zones, "zone", "", "all nodes of these `zones`")
	numberVar(f, &q.Worst, 0, client.MostWorst, "worst", "the `n` nodes whose death loses the most; 0: none")
	jsonFlag(f, &asJSON)
	return cmd
}

func printBlast(w io.Writer, b client.Blast) {
	if len(b.Nodes) == 0 {
		fmt.Fprintln(w, "No volume would be lost with that many nodes.")
		return
	}
	fmt.Fprintf(w, "With %s and what is on their disks:\n", strings.Join(b.Nodes, ", "))
	if len(b.Losses) == 0 {
		fmt.Fprintln(w, "no volume loses anything.")
		return
	}
	t := newTable("", text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignRight)
	t.AppendHeader(table.Row{"Volume", "Home", "Afterwards", "Copies"})
	for _, l := range b.Losses {
		t.AppendRow(table.Row{l.Volume, l.Home, fateLine(l), l.Copies})
	}
	finish(w, t)
	if b.Bytes > 0 {
		fmt.Fprintf(w, "%s would be lost for good.\n", size(b.Bytes))
	}
	fmt.Fprintf(w, "To repair it %s would travel.\n", size(b.Repair))
	for _, l := range b.NoRoom {
		fmt.Fprintf(w, "%s would lack a copy: %s\n", l.Volume, l.Why)
	}
}

func fateLine(l client.Loss) string {
	switch l.Fate {
	case "lost":
		if len(l.Unseen) > 0 {
			return "LOST, unless it is on " + strings.Join(l.Unseen, " or ") + ", which cannot be reached"
		}
		return "LOST"
	case "from a vault":
		return "comes back from a vault, " + oldness(l.Age)
	}
	return "goes on, " + l.Fate
}

func newClusterSettings() *cobra.Command {
	var dir string
	var asJSON bool
	var after time.Duration
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "Show or change what holds for the whole cluster",
		Long: `Shows what holds for the whole cluster, or changes it. A node that is down for longer than
--repair-after has its copies made anew on others. A restart of a machine should take less.`,
		Example: "  quarxfs cluster settings --repair-after 30m",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			agent := client.Local(dir)
			var s client.ClusterSettings
			if cmd.Flags().Changed("repair-after") {
				s, err = agent.ChangeSettings(cmd.Context(), client.ClusterSettings{RepairAfter: int64(after / time.Second)})
			} else {
				s, err = agent.Settings(cmd.Context())
			}
			if err != nil {
				return err
			}
			return printOne(cmd, asJSON, s, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "repair-after  %v\n", time.Duration(s.RepairAfter)*time.Second)
				return err
			})
		},
	}
	f := cmd.Flags()
	nodeDir(f, &dir)
	timeVar(f, timeFlag{to: &after, least: client.LeastRepairAfter, most: client.MostRepairAfter}, "repair-after", "`time` that a node may be down before its copies are made anew")
	jsonFlag(f, &asJSON)
	return cmd
}

// errRebuildUnconfirmed: the revision was not typed back.
var errRebuildUnconfirmed = errors.New("nothing was changed: repeat it with --revision and that number")

func newClusterRebuild() *cobra.Command {
	var dir string
	var q client.RebuildRequest
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Make the cluster's register again from what the nodes know",
		Long: `Makes the register again on this machine, whose node must be a voter, when too many voters have
lost it for anything to be decided; or brings one that was restored from an old copy to what the nodes
have done. Every node keeps a copy of what was decided, and remembers what it writes: the newest copy
counts, and of each volume the highest epoch. The command first shows that and changes nothing; with
--revision and its number it does it.

Volumes, snapshots and mounts are not touched. The other nodes follow by themselves; voters join the
new register as they did the first time. What their etcd had stays beside it as etcd.lost-N.`,
		Example: "  quarxfs cluster rebuild\n  quarxfs cluster rebuild --revision 417",
		RunE: func(cmd *cobra.Command, _ []string) error {
			agent := client.Local(dir)
			b, err := agent.Rebuild(cmd.Context(), q)
			if err != nil {
				return err
			}
			printRebuild(cmd.OutOrStdout(), b)
			switch {
			case !b.Done:
				return fmt.Errorf("%w: --revision %d", errRebuildUnconfirmed, b.Copy.Revision)
			case b.Anew || len(b.Changes) > 0:
				return awaitRebuild(cmd, agent, b.Copy.Config.Generation)
			}
			return nil
		},
	}
	f := cmd.Flags()
	nodeDir(f, &dir)
	numberVar(f, &q.Revision, 0, math.MaxInt64, "revision", "the `number` that the command has shown; 0: only show it")
	f.BoolVar(&q.Force, "force", false, "although other voters do not answer, as they are lost for good")
	return cmd
}

func printRebuild(w io.Writer, b client.Rebuild) {
	switch {
	case !b.Anew && len(b.Changes) == 0:
		fmt.Fprintln(w, "The register says what the nodes know.")
		return
	case b.Anew:
		fmt.Fprintf(w, "The register does not answer. It can be made again as of revision %d, with what %s know:\n",
			b.Copy.Revision, strings.Join(b.Answered, ", "))
	default:
		fmt.Fprintf(w, "The register is older than revision %d, which %s know. It will be other in: %s\n",
			b.Copy.Revision, strings.Join(b.Answered, ", "), strings.Join(b.Changes, ", "))
	}
	var nodes, volumes []string
	for _, n := range b.Copy.Nodes {
		nodes = append(nodes, n.Name)
	}
	for _, v := range b.Copy.Volumes {
		volumes = append(volumes, fmt.Sprintf("%s (%s, epoch %d)", v.Name, v.Home, v.Epoch))
	}
	fmt.Fprintf(w, "  nodes    %s\n  volumes  %s\n", orNone(nodes), cmp.Or(strings.Join(volumes, ", "), "none"))
	if len(b.Silent) > 0 {
		fmt.Fprintf(w, "  silent   %s: what they alone know is not in it\n", strings.Join(b.Silent, ", "))
	}
}

// awaitRebuild waits until the agent follows the register that was made again.
func awaitRebuild(cmd *cobra.Command, agent *client.Agent, generation string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), startTime)
	defer cancel()
	for {
		self, err := agent.Self(ctx)
		if err == nil && self.Ready && self.Generation == generation {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "The register is made; the other nodes follow.\n")
			return err
		}
		if routine.Sleep(ctx, followEvery) != nil {
			return fmt.Errorf("%w: %s; it goes on trying: see %s", client.ErrNoQuorum, cmp.Or(self.Why, "no answer yet"), nodeLog)
		}
	}
}
