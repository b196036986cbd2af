package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
)

func newCat() *cobra.Command {
	o := &getOptions{}
	cmd := &cobra.Command{
		Use:   "cat STORE SNAPSHOT:PATH",
		Short: "Write a file of a snapshot to a file or standard output",
		Long: `Writes a file as it is in a snapshot, from a store that is mounted or not. Nothing but
the blocks of what is written is read, and each is checked against its ID first; a
file given with -o appears only when it is whole. Symbolic links are not followed.`,
		Example: `  quarxfs cat /mnt monday:etc/fstab
  quarxfs cat /srv/store monday:images/disk.raw --range 0-511 | file -
  quarxfs cat /srv/store monday:shop.sql -o shop.sql`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			off, length, err := parseSpan(o.span)
			if err != nil {
				return err
			}
			snapshot, path := splitPast(args[1])
			if snapshot == "" || path == "" {
				return fmt.Errorf("%w: %q names no file: give SNAPSHOT:PATH", errUsage, args[1])
			}
			return onStore(cmd, args, func(n remote.Node) error {
				return o.write(cmd, func(w io.Writer) error {
					return remote.ReadPast(cmd.Context(), n, snapshot, path, off, length, w)
				})
			})
		},
	}
	o.flags(cmd.Flags())
	return cmd
}
