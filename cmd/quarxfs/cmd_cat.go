package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/snapread"
	"github.com/quarxtor/quarxfs/store/config"
)

func newCat() *cobra.Command {
	o := &getOptions{}
	cmd := &cobra.Command{
		Use:   "cat [STORE] [REMOTE:]SNAPSHOT:PATH",
		Short: "Write a file of a snapshot to a file or standard output",
		Long: `Writes a file as it is in a snapshot, from a store that is mounted or not. Only the blocks
that are needed are read, and each is checked against its ID. A new file given with -o appears
when it is whole. An existing one is written in place, as cp does. Zeroes become holes in a
file, as with get. Symbolic links in the snapshot are not followed.

REMOTE:SNAPSHOT:/PATH is a file in a snapshot of another store, a remote of STORE (see quarxfs
remote). Only the blocks that are needed travel. get takes this as well.`,
		Example: `  quarxfs cat /mnt monday:etc/fstab
  quarxfs cat /srv/store monday:images/disk.raw --range 0-511 | file -
  quarxfs cat /srv/store monday:shop.sql -o shop.sql
  quarxfs cat /srv/store office:monday:/images/disk.raw --range 0-511`,
		RunE: func(cmd *cobra.Command, args []string) error {
			off, length, err := parseSpan(o.span)
			if err != nil {
				return err
			}
			// A remote is asked by this process, without a detour through the daemon of STORE.
			peer, rest := splitRemote(args[1])
			snapshot, path := splitSnapshotPath(rest)
			if snapshot == "" || path == "" {
				return fmt.Errorf("%w: %q names no file: give SNAPSHOT:PATH", errUsage, args[1])
			}
			return onStore(cmd, args, func(n remote.Node) error {
				if peer == "" {
					return o.fromSnapshot(cmd, n, snapshot, path, off, length)
				}
				return onRemote(cmd.Context(), n, peer, func(_ config.Remote, c *remote.Client) error {
					return o.fromSnapshot(cmd, c, snapshot, path, off, length)
				})
			})
		},
	}
	o.flags(cmd.Flags())
	return cmd
}

// fromSnapshot writes a file of a snapshot.
func (o *getOptions) fromSnapshot(cmd *cobra.Command, from snapread.Reader, snapshot, path string, off, length int64) error {
	return o.write(cmd, func(w io.Writer) error {
		return snapread.ReadFile(cmd.Context(), from, snapshot, path, off, length, w)
	})
}

// splitRemote takes the remote off REMOTE:SNAPSHOT:/PATH; what is not of that form has
// none. Neither remotes nor snapshots have colons in their names.
func splitRemote(arg string) (peer, rest string) {
	peer, rest, _ = strings.Cut(arg, ":")
	if _, path, ok := strings.Cut(rest, ":"); ok && strings.HasPrefix(path, "/") && peer != "" {
		return peer, rest
	}
	return "", arg
}
