package main

import (
	"context"
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
	"github.com/quarxtor/quarxfs/fs/snapfs"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/snapread"
	"github.com/quarxtor/quarxfs/store/owner"
)

// A pastMount is what the read-only mount of a node at a URL has in place of a store.
type pastMount struct {
	client *remote.Client
	cache  *snapread.BlockCache
}

// pastFlags are those of mount that make sense for a URL.
var pastFlags = []string{"cache", "cache-size", "foreground", "dry-run", "allow-other", "memory", "read-ahead", "debug", "ready-fd", "options"}

// preparePast checks what can be checked before the node is asked.
func (o *mountOptions) preparePast(cmd *cobra.Command, arg, mountpoint string) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if !slices.Contains(pastFlags, f.Name) && err == nil {
			err = fmt.Errorf("%w: --%s makes no sense for a URL, whose snapshots are mounted to be read", errUsage, f.Name)
		}
	})
	if err != nil {
		return err
	}
	if o.node, err = nodeAt(strings.TrimRight(arg, "/")); err != nil {
		return err
	}
	if o.mountpoint, err = mounts.Resolve(mountpoint); err != nil {
		return err
	}
	if err := fs.CheckMountpoint(o.mountpoint); err != nil {
		return err
	}
	if o.store, err = cacheDir(o.cache, o.node.URL); err != nil {
		return err
	}
	if contains(o.store, o.mountpoint) || contains(o.mountpoint, o.store) {
		return fmt.Errorf("%w: %s and the cache %s contain each other; choose another directory", fs.ErrMountpoint, o.mountpoint, o.store)
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

// openPast connects to the node and opens the cache.
func (d *daemon) openPast(ctx context.Context, memory int64) error {
	o := d.opts
	token, err := tokenOf(o.node)
	if err != nil {
		return err
	}
	client, err := remote.DialRemote(o.node, token)
	if err != nil {
		return err
	}
	inside, _, err := asOwner(o.store, d.log)
	if err != nil {
		client.Close()
		return err
	}
	cache, err := snapread.NewBlockCache(client, snapread.CacheOptions{
		Dir: inside, URL: o.node.URL, Disk: int64(o.cacheSize), Memory: memory, Logger: d.log,
	})
	if err != nil {
		client.Close()
		return err
	}
	d.past = &pastMount{client, cache}
	_, err = cache.Snapshots(ctx) // who may not come in is told now
	return err
}

func (d *daemon) startPast() (err error) {
	o := d.opts
	return owner.AsCaller(func() (err error) {
		d.mount, err = snapfs.Mount(pastSource{d.past.cache}, o.mountpoint, snapfs.Options{
			Name: o.store, AllowOther: o.allowOther, ReadAhead: o.readAhead, Debug: o.debug, Logger: d.log,
		})
		if err == nil {
			err = d.noteMount()
		}
		return err
	})
}

func (p *pastMount) close() error {
	p.client.Close()
	return p.cache.Close()
}

// pastSource is a cache as a mount wants it.
type pastSource struct{ *snapread.BlockCache }

// Names implements snapfs.Source.
func (s pastSource) Names(ctx context.Context) ([]snapfs.Name, error) {
	list, err := s.Snapshots(ctx)
	names := make([]snapfs.Name, len(list))
	for i, one := range list {
		names[i] = snapfs.Name{Name: one.Name, ID: one.ID}
	}
	return names, err
}
