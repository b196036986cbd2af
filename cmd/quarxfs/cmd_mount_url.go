package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/fs"
)

// urlFlags are those of mount that make sense for a URL.
var urlFlags = []string{"cache", "cache-size", "foreground", "dry-run", "allow-other", "memory", "read-ahead", "debug", "ready-fd", "options"}

// prepareURL checks what can be checked before the node is asked.
func (o *mountOptions) prepareURL(cmd *cobra.Command, arg, mountpoint string) (err error) {
	// Only what was given is looked at: a default that makes no sense does no harm.
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if !slices.Contains(urlFlags, f.Name) && err == nil {
			err = fmt.Errorf("%w: --%s makes no sense for a URL, whose snapshots are mounted to be read", errUsage, f.Name)
		}
	})
	if err != nil {
		return err
	}
	if o.Node, err = nodeAt(strings.TrimRight(arg, "/")); err != nil {
		return err
	}
	if o.Mountpoint, err = mounts.Resolve(mountpoint); err != nil {
		return err
	}
	if err := fs.CheckMountpoint(o.Mountpoint); err != nil {
		return err
	}
	// The cache takes the place of the store: the daemon locks it, and has its socket and its log
	// in it.
	if o.Store, err = cacheDir(o.cache, o.Node.URL); err != nil {
		return err
	}
	if contains(o.Store, o.Mountpoint) || contains(o.Mountpoint, o.Store) {
		return fmt.Errorf("%w: %s and the cache %s contain each other; choose another directory", fs.ErrMountpoint, o.Mountpoint, o.Store)
	}
	return openFUSE()
}

// cacheDir returns where blocks of a node are kept.
func cacheDir(given, at string) (string, error) {
	if given != "" {
		return mounts.Resolve(given)
	}
	top, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w: say where blocks are kept with --cache: %v", errUsage, err)
	}
	u, err := url.Parse(at)
	if err != nil {
		return "", err
	}
	return mounts.Resolve(filepath.Join(top, "quarxfs", strings.ReplaceAll(u.Host, ":", "_")))
}
