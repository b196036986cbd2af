package main

import "github.com/spf13/cobra"

// newHelp is cobra's help with our words for what it does not know.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND...]",
		Short:   "Show what a command does",
		Example: "  quarxfs help snapshot create",
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
			c.InitDefaultHelpFlag()
			return c.Help()
		},
	}
}
