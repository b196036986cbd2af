package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/tiering/keyfile"
)

func newRemote() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remote",
		Short: "Name the stores to sync with",
	}
	for _, c := range []*cobra.Command{newRemoteAdd(), newRemoteList(), newRemoteRm()} {
		cmd.AddCommand(c)
	}
	return cmd
}

func newRemoteAdd() *cobra.Command {
	var r config.Remote
	var replace bool
	cmd := &cobra.Command{
		Use:   "add [STORE] NAME URL",
		Short: "Add a remote store",
		Long: `Gives another store a name. The token is read from its file at each sync, or from
$QUARXFS_TOKEN; only the owner may have rights to the file. --replace overwrites an existing
remote with what is given; how it is followed stays.`,
		Example: `  quarxfs remote add /mnt nas https://nas:7440 --token-file ~/nas.token --fingerprint 3f…
  quarxfs sync push /mnt nas --all`,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name, r.URL = args[1], args[2]
			// Absolute and there: the daemon, which stands elsewhere, reads them at each sync.
			for _, path := range []*string{&r.TokenFile, &r.CA, &r.Cert, &r.Key} {
				if *path == "" {
					continue
				}
				abs, err := mounts.Abs(*path)
				if err != nil {
					return err
				}
				if _, err := os.Stat(abs); err != nil {
					return fmt.Errorf("%w: %v", errUsage, err)
				}
				*path = abs
			}
			if err := r.Validate(); err != nil {
				return err
			}
			// Now, and not at the first sync, perhaps at night.
			if _, err := tokenOf(r); err != nil {
				return err
			}
			return onSettings(cmd, args[:1], func(n remote.Node, set config.Settings) error {
				if old, err := set.Remote(r.Name); err == nil && !replace {
					return fmt.Errorf("remote %q, which is %s: %w: %w", r.Name, old.URL, store.ErrNameTaken, errReplaceable)
				} else if err == nil {
					// What is followed is another command's matter and stays.
					r.Follow = old.Follow
				}
				return n.SetRemote(cmd.Context(), r)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.TokenFile, "token-file", "", "`file` that has the token")
	f.StringVar(&r.Fingerprint, "fingerprint", "", "trust only the certificate with this `SHA-256`")
	f.StringVar(&r.CA, "ca", "", "`file` with CA certificates to trust, in place of the system's")
	f.StringVar(&r.Cert, "cert", "", "`file` with a client certificate, for a server that asks for one")
	f.StringVar(&r.Key, "key", "", "`file` with the key of --cert")
	f.BoolVar(&replace, "replace", false, "overwrite an existing remote of that name")
	f.StringVar(&r.Prefix, "prefix", "", "`text` before the names that snapshots get on the receiving side")
	return cmd
}

func newRemoteList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list [STORE]",
		Short:   "List the remote stores",
		Example: `  quarxfs remote list /mnt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onSettings(cmd, args, func(_ remote.Node, set config.Settings) error {
				if asJSON {
					return printLines(cmd.OutOrStdout(), true, nil, func(fn func(config.Remote) error) error { return each(set.Remotes, fn) })
				}
				t := newTable("", text.AlignLeft, text.AlignLeft, text.AlignLeft)
				t.AppendHeader(table.Row{"Remote", "URL", "Follow"})
				for _, r := range set.Remotes {
					t.AppendRow(table.Row{printable(r.Name), printable(r.URL), describeFollow(r.Follow)})
				}
				return printList(cmd.OutOrStdout(), t, "remotes")
			})
		},
	}
	jsonLinesFlag(cmd.Flags(), &asJSON)
	return cmd
}

func newRemoteRm() *cobra.Command {
	return &cobra.Command{
		Use:     "rm [STORE] REMOTE",
		Short:   "Forget a remote store",
		Example: `  quarxfs remote rm /mnt nas`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args[:1], func(n remote.Node) error { return n.RemoveRemote(cmd.Context(), args[1]) })
		},
	}
}

// tokenOf returns the token for a remote: from its file, or else the environment.
func tokenOf(r config.Remote) (string, error) {
	if r.TokenFile == "" {
		return os.Getenv(tokenVariable), nil
	}
	b, mode, err := keyfile.Read(r.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token for %s: %w", r.URL, err)
	}
	if mode.Perm()&0o077 != 0 {
		return "", fmt.Errorf("%w: token file %s can be read by others: chmod 600 it", errUsage, r.TokenFile)
	}
	return strings.TrimSpace(string(b)), nil
}

// onSettings runs fn on a store and what is set in it.
func onSettings(cmd *cobra.Command, args []string, fn func(remote.Node, config.Settings) error) error {
	return onStore(cmd, args, func(n remote.Node) error {
		set, err := n.Settings(cmd.Context())
		if err != nil {
			return err
		}
		return fn(n, set)
	})
}

// onRemote runs fn on a store and a remote of it.
func onRemote(ctx context.Context, n remote.Node, name string, fn func(config.Remote, *remote.Client) error) error {
	set, err := n.Settings(ctx)
	if err != nil {
		return err
	}
	r, err := set.Remote(name)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w; see quarxfs remote list", err)
	}
	if err != nil {
		return err
	}
	return onPeer(r, func(c *remote.Client) error { return fn(r, c) })
}

func onPeer(r config.Remote, fn func(*remote.Client) error) error {
	c, err := dialRemote(r)
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(c)
}

// dialRemote connects to a remote with the token that there is for it.
func dialRemote(r config.Remote) (*remote.Client, error) {
	token, err := tokenOf(r)
	if err != nil {
		return nil, err
	}
	return remote.DialRemote(r, token)
}
