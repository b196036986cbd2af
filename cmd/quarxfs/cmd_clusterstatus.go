package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/rawjson"
)

// What cluster status and cluster health end with, when not all is well.
var (
	errClusterWarn = errors.New("the cluster needs attention")
	errClusterErr  = errors.New("something in the cluster does not work")
)

const watchEvery = 2 * time.Second

func newClusterStatus() *cobra.Command {
	var dir string
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the cluster is",
		Long: `Shows the cluster's nodes and all that is not as it should be. What a node did not say is
shown as "?", and never counts as good. Exit code 22 means that something needs attention, 23 that
something does not work.`,
		Example: "  quarxfs cluster status --watch",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showStatus(cmd, dir, asJSON, watch, printStatus)
		},
	}
	f := cmd.Flags()
	nodeDir(f, &dir)
	f.BoolVar(&watch, "watch", false, "show it again each 2 seconds, until it is interrupted")
	jsonFlag(f, &asJSON)
	return cmd
}

func newClusterHealth() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Explain what is wrong with the cluster, and what to do",
		Long: `Lists each thing that is not as it should be: since when, what it means and what to type.
The exit codes are those of quarxfs cluster status.`,
		Example: "  quarxfs cluster health",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return showStatus(cmd, dir, asJSON, false, printHealth)
		},
	}
	nodeDir(cmd.Flags(), &dir)
	jsonFlag(cmd.Flags(), &asJSON)
	return cmd
}

func showStatus(cmd *cobra.Command, dir string, asJSON, watch bool, show func(io.Writer, health.Status)) error {
	agent := client.Local(dir)
	for {
		s, err := agent.Status(cmd.Context())
		if err != nil {
			return err
		}
		if asJSON {
			err = rawjson.Write(cmd.OutOrStdout(), s)
		} else {
			show(cmd.OutOrStdout(), s)
		}
		// Watching ends by an interrupt, so that only a single look has a state to end with.
		if err != nil || !watch {
			return errors.Join(err, stateError(s.State))
		}
		select {
		case <-cmd.Context().Done():
			return context.Cause(cmd.Context())
		case <-time.After(watchEvery):
		}
	}
}

func stateError(l health.Level) error {
	switch l {
	case health.OK:
		return nil
	case health.Warn:
		return errClusterWarn
	}
	return errClusterErr
}

func printStatus(w io.Writer, s health.Status) {
	c := s.Control
	// Three states, as "2 of 3 up" says to few people whether one more may fail.
	can := "bears no failure"
	switch {
	case !c.Decides:
		can = "CANNOT DECIDE"
	case c.Survives > 0:
		can = fmt.Sprintf("bears %d more to fail", c.Survives)
	}
	fmt.Fprintf(w, "Cluster %s: %s, %d of %d voters up, %s, as of %s\n", s.Cluster, s.State, c.Up, c.Voters, can, s.AsOf.Format(time.TimeOnly))
	for _, check := range s.Checks {
		fmt.Fprintf(w, "  %-18s %s\n", check.Code, check.Text)
	}
	fmt.Fprintln(w)
	t := newTable("", text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignRight, text.AlignRight, text.AlignLeft)
	t.AppendHeader(table.Row{"Node", "Zone", "Roles", "Up", "Used", "Free", "Version"})
	for _, n := range s.Nodes {
		t.AppendRow(table.Row{
			n.Name, printable(n.Zone), nodeRoles(n.Roles, n.Votes), nodeUp(n),
			known(n.Used, size), known(n.Free, size), known(n.Version, printable),
		})
	}
	finish(w, t)
	if len(s.Volumes) > 0 {
		fmt.Fprintln(w)
		printVolumes(w, s.Volumes)
		fmt.Fprintln(w)
		printRepairs(w, s)
	}
}

func nodeUp(n health.Node) string {
	if n.State == cluster.StateDraining {
		return yesNo(n.Up) + ", draining"
	}
	return yesNo(n.Up)
}

// printRepairs says which copies are being made, and which cannot be.
func printRepairs(w io.Writer, s health.Status) {
	if s.Held != "" {
		fmt.Fprintf(w, "Repair  no copy is made or removed: %s\n", s.Held)
	}
	for _, r := range s.Repair {
		to := ""
		if r.Node != "" {
			to = " -> " + r.Node
		}
		sent := ""
		if r.Sent != nil && *r.Sent > 0 {
			sent = ", " + size(*r.Sent) + " sent"
		}
		fmt.Fprintf(w, "Repair  %s%s for %v%s: %s\n", r.Volume, to, max(0, s.AsOf.Sub(r.Since)).Round(time.Second), sent, r.Why)
	}
	if s.Held == "" && len(s.Repair) == 0 {
		fmt.Fprintln(w, "Repair  nothing runs")
	}
}

// known prints what may be unknown.
func known[T any](v *T, print func(T) string) string {
	if v == nil {
		return "?"
	}
	return print(*v)
}

func printHealth(w io.Writer, s health.Status) {
	if len(s.Checks) == 0 {
		fmt.Fprintln(w, "All is well.")
		return
	}
	for i, c := range s.Checks {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s %s\n", c.Level, c.Code)
		// An agent that has just started does not know since when.
		if c.Since != nil {
			fmt.Fprintf(w, "  since  %s\n", c.Since.Local().Format(time.DateTime))
		}
		if len(c.Subjects) > 0 {
			fmt.Fprintf(w, "  of     %s\n", strings.Join(c.Subjects, ", "))
		}
		fmt.Fprintf(w, "  means  %s\n  do     %s\n", c.Text, c.Do)
	}
}

// nodeRoles tells a voter that waits for a third one from one that votes.
func nodeRoles(roles []cluster.Role, votes bool) string {
	var words []string
	for _, r := range roles {
		if r == cluster.RoleVoter && !votes {
			words = append(words, "voter (waits)")
			continue
		}
		words = append(words, string(r))
	}
	return strings.Join(words, ", ")
}
