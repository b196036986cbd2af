package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/client"
)

const (
	goldenStore = "cmd/quarxfs/testdata/golden/ad6b980.tar.gz"
	goldenCold  = "/var/tmp/quarxfs-golden" // the directory of its cold tier, which is in its settings
	goldenDir   = "/var/lib/quarxfs/golden"
	plainDir    = "/var/lib/quarxfs/plain"
)

// runA10 makes a volume of a store that an old program has made, and compares it with the same
// store, used by today's program without a cluster.
func runA10(ctx context.Context, t *trial) error {
	// The list of the store's files is written by the program that has judged it since it was made.
	lister, err := filepath.Abs(filepath.Join(t.work, "list-tree"))
	if err != nil {
		return err
	}
	if _, err := output(exec.CommandContext(ctx, "go", "test", "-c", "-o", lister, "./cmd/quarxfs")); err != nil {
		return fmt.Errorf("in the module's root: %w", err)
	}
	defer os.Remove(lister)
	for t.result.Rounds < t.rounds {
		if err := t.adoptGolden(ctx, lister); err != nil {
			return err
		}
		t.result.Rounds++
	}
	return nil
}

func (t *trial) adoptGolden(ctx context.Context, lister string) error {
	if err := t.newCluster(ctx, "n1", "n2", "n3"); err != nil {
		return err
	}
	n, vault := t.rig.nodes["n1"], t.rig.nodes["n2"]
	for _, dir := range []string{goldenDir, plainDir} {
		if err := t.unpack(ctx, n, dir); err != nil {
			return err
		}
	}
	// The same store, used without a cluster: what changes there is no doing of the cluster's.
	plain, err := t.use(ctx, n, plainDir, lister, func() error {
		_, err := n.quarxfs(ctx, "snapshot", "create", mountpoint, "third")
		return err
	})
	if err != nil {
		return fmt.Errorf("without a cluster: %w", err)
	}

	store := filepath.Join(goldenDir, "store")
	before, err := hashes(n.path(store))
	if err != nil {
		return err
	}
	if _, err := n.quarxfs(ctx, "cluster", "volume", "adopt", store, volumeName, "--rpo", "4s", "--vault", "n2"); err != nil {
		return err
	}
	after, err := hashes(n.path(store))
	if err != nil {
		return err
	}
	t.require(slices.Equal(before, after), "adopt has changed the store:\n%s", differences(before, after))
	begun := time.Now()
	adopted, err := t.use(ctx, n, goldenDir, lister, func() error {
		return t.awaitSnapshotAfter(ctx, vault, begun)
	})
	if err != nil {
		return err
	}
	t.require(slices.Equal(plain, adopted), "the store has other files than without a cluster:\n%s", differences(plain, adopted))

	// Its own snapshots are at the vault, too, with what was in them.
	if _, err := vault.quarxfs(ctx, "cluster", "stop"); err != nil {
		return err
	}
	at := filepath.Join(client.DefaultDir, "vaults", "default")
	if _, err := vault.quarxfs(ctx, "mount", "-o", "ro", at, mountpoint); err != nil {
		return err
	}
	for _, name := range []string{"one", "two"} {
		err := t.compareList(ctx, vault, lister, filepath.Join(mountpoint, ".snapshots", volumeName+"@"+name), n.path(filepath.Join(goldenDir, name+".list")))
		if err != nil {
			return err
		}
	}
	if _, err = vault.quarxfs(ctx, "umount", mountpoint); err != nil {
		return err
	}
	t.measured("files of the store that adopt has left as they were", len(after))
	return nil
}

// unpack puts the golden store and its cold tier onto a machine.
func (t *trial) unpack(ctx context.Context, n *node, dir string) error {
	if err := os.Mkdir(n.path(dir), 0o755); err != nil {
		return err
	}
	_, err := output(exec.CommandContext(ctx, "tar", "-xzf", goldenStore, "-C", n.path(dir)))
	return err
}

// use mounts a store, does something, compares all that is in it with what was in it when it was
// made, unmounts it, and returns which files it has and what its settings are.
func (t *trial) use(ctx context.Context, n *node, dir, lister string, do func() error) (is []string, err error) {
	store := filepath.Join(dir, "store")
	// The cold tier's directory is absolute, and what the machine makes there is to be its own.
	for _, args := range [][]string{
		{"mkdir", "-p", "/run/over/upper", "/run/over/work"},
		{"mount", "-t", "overlay", "-o", "lowerdir=/var/tmp,upperdir=/run/over/upper,workdir=/run/over/work", "over", "/var/tmp"},
		{"mkdir", "-p", goldenCold}, {"ln", "-sfn", filepath.Join(dir, "cold"), filepath.Join(goldenCold, "cold")},
	} {
		if _, err := output(n.space.in(ctx, args...)); err != nil {
			return nil, err
		}
	}
	if _, err := n.quarxfs(ctx, "mount", store, mountpoint); err != nil {
		return nil, err
	}
	if err := do(); err != nil {
		return nil, err
	}
	if err := t.compareList(ctx, n, lister, mountpoint, n.path(filepath.Join(dir, "tree.list"))); err != nil {
		return nil, err
	}
	for _, name := range []string{"one", "two"} {
		if err := t.compareList(ctx, n, lister, filepath.Join(mountpoint, ".snapshots", name), n.path(filepath.Join(dir, name+".list"))); err != nil {
			return nil, err
		}
	}
	if _, err := n.quarxfs(ctx, "umount", mountpoint); err != nil {
		return nil, err
	}
	if _, err := n.quarxfs(ctx, "fsck", store); err != nil {
		t.fail("fsck of %s: %v", store, err)
	}
	if _, err := output(n.space.in(ctx, "umount", "-l", "/var/tmp")); err != nil {
		return nil, err
	}
	return formatOf(n.path(store))
}

// compareList requires that a tree is as a list says that was made with the store.
func (t *trial) compareList(ctx context.Context, n *node, lister, dir, list string) error {
	want, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	// The tests of the command are this program, too, under its name.
	got, err := output(n.space.in(ctx, lister, dir))
	if err != nil {
		return err
	}
	a, b := strings.Split(string(want), "\n"), strings.Split(got, "\n")
	t.require(slices.Equal(a, b), "%s on %s is not what it was:\n%s", dir, n.name, differences(a, b))
	return nil
}

// formatOf is what tells a program whether it can open the store: which files there are, as far as
// they have names of their own, and its settings.
func formatOf(store string) (is []string, err error) {
	err = filepath.WalkDir(store, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, store)
		switch {
		case err != nil || d.IsDir() || strings.HasPrefix(name, "/hot/") || strings.HasPrefix(name, "/db/"):
			return err // numbered; the superblock and the settings say how they are written
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		switch filepath.Base(name) {
		case "quarxfs.json", "settings.json", "tiers.json":
			name += " " + strings.Join(strings.Fields(string(b)), " ")
		}
		is = append(is, name)
		return nil
	})
	return is, err
}

// hashes are the names, sizes and contents of all files below a directory.
func hashes(dir string) (all []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, fmt.Sprintf("%s %d bytes %x", strings.TrimPrefix(path, dir), len(b), sha256.Sum256(b)))
		return err
	})
	return all, err
}

// differences are the lines that only one side has, some of them.
func differences(a, b []string) string {
	var lines []string
	for _, side := range []struct {
		mark      string
		has, lack []string
	}{{"-", a, b}, {"+", b, a}} {
		for _, line := range side.has {
			if !slices.Contains(side.lack, line) {
				lines = append(lines, side.mark+" "+line)
			}
		}
	}
	const most = 8
	if len(lines) > most {
		lines = append(lines[:most], fmt.Sprintf("and %d more", len(lines)-most))
	}
	return strings.Join(lines, "\n")
}
