package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
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
					// Printed as they come; there may be millions.
					return n.ListObjects(cmd.Context(), o.page, fn)
				})
			})
		},
	}
	cmd.Flags().StringVar(&o.page.After, "after", "", "begin behind this `name`")
	numberVar(cmd.Flags(), &o.page.Limit, 0, most, "limit", "stop after so many; 0: never")
	jsonLinesFlag(cmd.Flags(), &o.json)
	return cmd
}

func printObject(w io.Writer, o remote.Object) error {
	_, err := fmt.Fprintf(w, "%s %12d  %s\n", o.ID, o.Size, printable(o.Name))
	return err
}

// hintNoObject adds to the error for an object that there is none of what has that name instead.
func hintNoObject(ctx context.Context, n remote.Node, ref string, err error) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if what := noObject(ctx, n, ref); what != "" {
		return fmt.Errorf("%w; %s", err, what)
	}
	return err
}

// noObject says what something is that is no object.
func noObject(ctx context.Context, n remote.Node, ref string) string {
	// Names are tried in the order in which people mix them up.
	if _, err := n.GetSnapshot(ctx, ref); err == nil {
		return "it is a snapshot: quarxfs snapshot rm removes it, .snapshots/" + printable(ref) + " shows it"
	}
	_, err := os.Lstat(ref)
	if err != nil {
		path := strings.Trim(ref, "/")
		err = n.ListFiles(ctx, remote.FileFilter{Path: path, Limit: 1}, func(remote.File) error { return nil })
	}
	if err == nil {
		return "it is a file or directory, not an object: use rm, cat or cp in the mount"
	}
	return ""
}

func newRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm [STORE] OBJECT",
		Short: "Remove an object, by name or ID",
		Long: `Removes the object with the name, the ID or the only ID that starts with OBJECT. Blocks
that nothing else refers to are reclaimed soon. Objects are what put has stored; files are removed in the
mount with rm(1), snapshots with quarxfs snapshot rm.`,
		Example: `  quarxfs rm /srv/store shop.sql`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeStore(cmd, args, func(n remote.Node) error {
				return hintNoObject(cmd.Context(), n, args[1], n.Remove(cmd.Context(), args[1]))
			})
		},
	}
}
