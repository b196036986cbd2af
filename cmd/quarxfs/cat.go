package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

func newCat() *cobra.Command {
	o := &getOptions{}
	var peer string
	cmd := &cobra.Command{
		Use:   "cat STORE SNAPSHOT:PATH",
		Short: "Write a file of a snapshot to a file or standard output",
		Long: `Writes a file as it is in a snapshot, from a store that is mounted or not. Nothing but
the blocks of what is written is read, and each is checked against its ID first; a
file given with -o appears only when it is whole. Symbolic links are not followed.

With --from the snapshot is one of a remote of STORE (see quarxfs remote), which need
not be pulled first: only the blocks of what is written travel.`,
		Example: `  quarxfs cat /mnt monday:etc/fstab
  quarxfs cat /srv/store monday:images/disk.raw --range 0-511 | file -
  quarxfs cat /srv/store monday:shop.sql -o shop.sql
  quarxfs cat /srv/store --from office monday:images/disk.raw --range 0-511`,
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
			read := func(from remote.Past) error {
				return o.write(cmd, func(w io.Writer) error {
					return remote.ReadPast(cmd.Context(), from, snapshot, path, off, length, w)
				})
			}
			return onStore(cmd, args, func(n remote.Node) error {
				if peer == "" {
					return read(n)
				}
				return onRemote(cmd.Context(), n, peer, func(_ store.Remote, c *remote.Client) error { return read(c) })
			})
		},
	}
	o.flags(cmd.Flags())
	cmd.Flags().StringVar(&peer, "from", "", "a snapshot of the remote with this `name` rather than of the store")
	return cmd
}
