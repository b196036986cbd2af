// Command quarxfs makes, mounts and inspects QuarXFS stores. This package is
// wiring: flags, the way to a store, and printing.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/internal/buildinfo"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
)

func main() { os.Exit(run()) }

func run() int {
	// A signal ends what is under way by its context, so that what is half made can be removed.
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	defer stop()
	args, helper, err := asHelper(os.Args)
	if err == nil {
		cmd := newRoot()
		out := &output{file: os.Stdout}
		cmd.SetOut(out)
		cmd.SetArgs(args)
		// Only for the shell's completion, whose lines would show the quotes.
		if len(args) > 0 && args[0] == cobra.ShellCompRequestCmd {
			unquoteUsages(cmd)
		}
		err = cmd.ExecuteContext(ctx)
		if err == nil {
			err = out.err
		}
	}
	code := exitOK
	if err != nil {
		if text := oneLine(err); text != "" {
			fmt.Fprintln(os.Stderr, "quarxfs:", text)
		}
		code = exitCode(err)
	}
	if helper {
		return helperCode(code)
	}
	return code
}

// endSignals are those that make a command give up and a daemon commit and leave. The one that a
// closed terminal sends is among them: a mount would lose what it has not committed. Who starts
// a command with nohup means to be spared; a daemon has no terminal, so it gets only what is
// meant for it.
func endSignals() []os.Signal {
	all := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) || isDaemon() {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// isDaemon returns whether this process leads a session of its own.
func isDaemon() bool {
	sid, err := unix.Getsid(0)
	return err == nil && sid == os.Getpid()
}

func newRoot() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarxfs",
		Short: "A filesystem that stores each distinct block once",
		Long: `QuarXFS is a filesystem that stores each distinct block once and checks every
byte that is read.`,
		RunE:          runRoot,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	// On all commands, since a script's author looks where the flags are.
	cmd.SetUsageTemplate(cmd.UsageTemplate() + exitFooter)
	cmd.Version = buildinfo.Version()
	cmd.SetVersionTemplate(versionLine())
	cmd.SetFlagErrorFunc(flagError)
	cmd.AddGroup(
		&cobra.Group{ID: "mounts", Title: "Stores and mounts:"},
		&cobra.Group{ID: "snapshots", Title: "Snapshots:"},
		&cobra.Group{ID: "peers", Title: "Other stores:"},
		&cobra.Group{ID: "look", Title: "What is inside:"},
		&cobra.Group{ID: "object", Title: "Objects:"},
		&cobra.Group{ID: "maintenance", Title: "Maintenance:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			cmd.AddCommand(c)
		}
	}
	add("mounts", newInit(), newMount(), newUmount())
	add("snapshots", newSnapshot(), newCat())
	add("peers", newRemote(), newSync(), newServe(), newToken(), newCluster())
	add("look", newStats(), newListFiles(), newListBlocks(), newDu(), newGraph(), newSimulate())
	add("object", newPut(), newGet(), newRemove(), newObjects())
	add("maintenance", newGC(), newOptimize(), newScrub(), newFsck(), newRebuild(), newTier(), newAudit())
	cmd.AddCommand(newVersion(), newMan(), newDaemonHelper(daemon.FlushHelper+" DEVICE PATH...", func(_ *cobra.Command, args []string) error { return daemon.Flush(args) }),
		newDaemonHelper(daemon.AbortHelper+" MOUNT PID TID", func(cmd *cobra.Command, args []string) error {
			return daemon.Abort(cmd.Context(), cmd.InOrStdin(), args)
		}))
	cmd.AddCommand(topics()...)
	cmd.SetHelpCommand(newHelp())
	cmd.InitDefaultHelpCmd()
	cmd.InitDefaultCompletionCmd() // both here, so that they are taught like all others
	teach(cmd)
	return cmd
}

// newDaemonHelper makes a command that a daemon starts as a process of its own.
func newDaemonHelper(use string, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Hidden: true, RunE: run}
}

// runRoot runs when no command is named.
func runRoot(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return shortHelp(cmd)
	}
	return unknownCommand(cmd, args[0])
}
