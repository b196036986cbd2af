package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
)

type objectsOptions struct {
	json bool
	page remote.Page
}

func newObjects() *cobra.Command {
	o := &objectsOptions{}
	cmd := &cobra.Command{
		Use:   "objects [STORE]",
		Short: "List the objects of a store",
		Example: `  quarxfs objects /srv/store
  quarxfs objects /srv/store --json | jq -r .name`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args, func(n remote.Node) error {
				return printLines(cmd.OutOrStdout(), o.json, printObject, func(fn func(remote.Object) error) error {
					return n.ListObjects(cmd.Context(), o.page, fn)
				})
			})
		},
	}
	cmd.Flags().StringVar(&o.page.After, "after", "", "begin behind this `name`")
	numberVar(cmd.Flags(), &o.page.Limit, 0, most, "limit", "stop after so many; 0: never")
	cmd.Flags().BoolVar(&o.json, "json", false, "print a JSON object a line")
	return cmd
}

func printObject(w io.Writer, o remote.Object) error {
	_, err := fmt.Fprintf(w, "%s %12d  %s\n", o.ID, o.Size, printable(o.Name))
	return err
}

func newRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm [STORE] OBJECT",
		Short: "Remove an object, by name or ID",
		Long: `Removes the object with the name, the ID or the only ID that starts with OBJECT. Blocks
that nothing else refers to are reclaimed soon.`,
		Example: `  quarxfs rm /srv/store shop.sql`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeStore(cmd, args, func(n remote.Node) error { return n.Remove(cmd.Context(), args[1]) })
		},
	}
}
