package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// newHelp is cobra's help with our words for what it does not know.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND...]",
		Short:   "Show what a command does",
		Example: "  quarxfs help snapshot create",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			c, _, err := cmd.Root().Find(args)
			var names []string
			for _, sub := range c.Commands() {
				if err == nil && !sub.Hidden {
					names = append(names, sub.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c := cmd.Root()
			for _, name := range args {
				var found *cobra.Command
				for _, sub := range c.Commands() {
					if sub.Name() == name || sub.HasAlias(name) {
						found = sub
					}
				}
				if found == nil {
					return unknownCommand(c, name)
				}
				c = found
			}
			// cobra adds it when the command runs, which it does not here.
			c.InitDefaultHelpFlag()
			return c.Help()
		},
	}
}

// topics are pages of the help that are no commands.
func topics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "exit-codes", Short: "What the exit codes of all commands mean", Long: exitHelp()},
		{Use: "stores", Short: "How a store is named", Long: `STORE names a store: its directory, or any path inside its mount. Where it is in brackets
it may be left out: then it is the mount of the current directory, else $` + storeVariable + `.

` + urlHelp},
	}
}

// shortHelp is what a screen has room for; --help says what each command does.
func shortHelp(root *cobra.Command) error {
	var b strings.Builder
	b.WriteString(root.Long + `

First steps:
  quarxfs mount --init STORE DIR     create a store and mount it on an empty directory
  quarxfs stats DIR                  see what it saves
  quarxfs snapshot create DIR NAME   keep the current state
  quarxfs umount DIR

Commands:
`)
	// The commands themselves are asked, so that a new one is in this list by itself.
	for _, g := range root.Groups() {
		var names []string
		for _, c := range root.Commands() {
			if c.GroupID == g.ID && !c.Hidden {
				names = append(names, c.Name())
			}
		}
		fmt.Fprintf(&b, "  %-20s %s\n", strings.TrimSuffix(g.Title, ":"), strings.Join(names, " "))
	}
	b.WriteString(`
quarxfs --help says what each does, quarxfs help COMMAND how; see also
quarxfs help stores and quarxfs help exit-codes.
`)
	_, err := fmt.Fprint(root.OutOrStdout(), b.String())
	return err
}
