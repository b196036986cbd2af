// Command syncbench measures what `quarxfs sync` sends, against rsync and restic,
// over a good and a bad link, and kills either side in its midst. It mounts two
// stores and needs root, rsync and restic; for the link also ip and /dev/net/tun.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/tools/cli"
)

type bench struct {
	quarxfs, work, source string
	rounds                int
	seed                  uint64
	mbit                  int
}

// A node is a mounted store behind a relay.
type node struct {
	b          *bench
	store, mnt string
	relay      *relay
}

func main() { cli.Main(newCommand()) }

func newCommand() *cobra.Command {
	b := &bench{}
	cmd := &cobra.Command{
		Use:   "syncbench",
		Short: "Measure what quarxfs sync sends, and interrupt it",
		Long: `Measure what quarxfs sync sends, against rsync and restic, over a good and a bad link,
and kill either side in its midst. It mounts two stores and needs root, rsync and
restic; for the link also ip and /dev/net/tun.`,
	}
	f := cmd.PersistentFlags()
	f.StringVar(&b.quarxfs, "quarxfs", "bin/quarxfs", "the quarxfs `program`")
	f.StringVar(&b.work, "work", "/var/tmp/quarxfs-syncbench", "`directory` to work in; it is removed at the end")
	f.StringVar(&b.source, "source", "", "`directory` to push; the Go source if empty")
	for _, c := range []struct {
		name, short string
		do          func(context.Context) error
	}{
		{"bytes", "push a tree and a change, and show what each costs", b.bytes},
		{"kill", "push again and again, each time with a SIGKILL in its midst", b.kill},
		{"link", "push over a link with 100 ms, 1 % loss and a bandwidth", b.link},
	} {
		cmd.AddCommand(&cobra.Command{Use: c.name, Short: c.short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return b.run(cmd.Context(), c.do)
		}})
	}
	f.IntVar(&b.rounds, "rounds", 50, "of kill")
	f.Uint64Var(&b.seed, "seed", uint64(time.Now().UnixNano()), "of kill")
	f.IntVar(&b.mbit, "mbit", 50, "bandwidth of link")
	return cmd
}

func (b *bench) run(ctx context.Context, do func(context.Context) error) (err error) {
	if b.source == "" {
		root, err := output(ctx, "go", "env", "GOROOT")
		if err != nil {
			return err
		}
		b.source = filepath.Join(strings.TrimSpace(root), "src")
	}
	// In another namespace it is run from another directory.
	if b.quarxfs, err = filepath.Abs(b.quarxfs); err != nil {
		return err
	}
	if err := os.MkdirAll(b.work, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.clean()) }()
	return do(ctx)
}

func (b *bench) clean() error {
	for _, name := range []string{"a", "b"} {
		_ = exec.Command(b.quarxfs, "umount", filepath.Join(b.work, name, "mnt")).Run() // it may not be mounted
	}
	return os.RemoveAll(b.work)
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	var out, problem bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, problem.String())
	}
	return out.String(), nil
}

func (b *bench) node(ctx context.Context, name, addr string) (*node, error) {
	dir := filepath.Join(b.work, name)
	n := &node{b: b, store: filepath.Join(dir, "store"), mnt: filepath.Join(dir, "mnt")}
	if err := os.MkdirAll(n.mnt, 0o755); err != nil {
		return nil, err
	}
	if err := n.mount(ctx); err != nil {
		return nil, err
	}
	var err error
	n.relay, err = listen(addr, n.store)
	return n, err
}

// pair returns two nodes, of which the first knows the second, at an address, as
// peer.
func (b *bench) pair(ctx context.Context, addr string) (src, dst *node, err error) {
	if src, err = b.node(ctx, "a", "127.0.0.1:0"); err != nil {
		return nil, nil, err
	}
	if dst, err = b.node(ctx, "b", addr); err != nil {
		return nil, nil, err
	}
	_, err = output(ctx, b.quarxfs, "remote", "add", src.store, "peer", dst.relay.url())
	return src, dst, err
}

func (n *node) mount(ctx context.Context) error {
	_, err := output(ctx, n.b.quarxfs, "mount", "--init", n.store, n.mnt)
	return err
}

// ask runs a command with --json and decodes what it prints.
func (b *bench) ask(ctx context.Context, into any, args ...string) error {
	out, err := output(ctx, b.quarxfs, append(args, "--json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

func (n *node) pid(ctx context.Context) (int, error) {
	var st struct {
		Daemon struct {
			PID int `json:"pid"`
		} `json:"daemon"`
	}
	err := n.b.ask(ctx, &st, "stats", n.store)
	return st.Daemon.PID, err
}

// killAndMount kills the daemon and mounts the store again.
func (n *node) killAndMount(ctx context.Context, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	// Lazily: a dead daemon's mount cannot be asked whether it is busy.
	_, _ = output(ctx, "umount", "-l", n.mnt) // of a daemon that is gone
	return n.mount(ctx)
}

func (n *node) snapshot(ctx context.Context, name string) (fresh int64, err error) {
	var s struct {
		Totals struct {
			New int64 `json:"new_stored_bytes"`
		} `json:"totals"`
	}
	err = n.b.ask(ctx, &s, "snapshot", "create", n.mnt, name)
	return s.Totals.New, err
}

type report struct {
	Blocks  int64   `json:"blocks"`
	Bytes   int64   `json:"bytes"`
	Skipped int64   `json:"skipped"`
	Retries int64   `json:"retries"`
	Seconds float64 `json:"seconds"`
}

// sameTrees compares a snapshot on both sides.
func sameTrees(ctx context.Context, a, b *node, name string) error {
	_, err := output(ctx, "diff", "-r", "--no-dereference", filepath.Join(a.mnt, ".snapshots", name), filepath.Join(b.mnt, ".snapshots", name))
	return err
}

func (n *node) fsck(ctx context.Context) error {
	_, err := output(ctx, n.b.quarxfs, "fsck", n.store)
	return err
}
