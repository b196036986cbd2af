// Command syncbench measures what `quarxfs sync` sends, against rsync and restic,
// over a good and a bad link, and kills either side in its midst. It mounts two
// stores and needs root, rsync and restic; for the link also ip and /dev/net/tun.
//
//	syncbench [--work DIR] [--source DIR] bytes     what a push and a change cost
//	syncbench [--work DIR] [--rounds N] kill        N pushes, each with a SIGKILL
//	syncbench [--work DIR] [--source DIR] link      100 ms, 1 % loss, 50 Mbit/s
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
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

func main() {
	b := &bench{}
	flag.StringVar(&b.quarxfs, "quarxfs", "bin/quarxfs", "the program")
	flag.StringVar(&b.work, "work", "/var/tmp/quarxfs-syncbench", "directory to work in; it is removed at the end")
	flag.StringVar(&b.source, "source", "", "tree to push; the Go source if empty")
	flag.IntVar(&b.rounds, "rounds", 50, "of kill")
	flag.Uint64Var(&b.seed, "seed", uint64(time.Now().UnixNano()), "of kill")
	flag.IntVar(&b.mbit, "mbit", 50, "bandwidth of link")
	flag.Parse()
	if err := b.run(flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "syncbench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(what string) (err error) {
	do, ok := map[string]func() error{"bytes": b.bytes, "kill": b.kill, "link": b.link}[what]
	if !ok {
		return errors.New("say what to do: bytes, kill or link")
	}
	if b.source == "" {
		root, err := output("go", "env", "GOROOT")
		if err != nil {
			return err
		}
		b.source = filepath.Join(strings.TrimSpace(root), "src")
	}
	if b.quarxfs, err = filepath.Abs(b.quarxfs); err != nil {
		return err
	}
	if err := os.MkdirAll(b.work, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.clean()) }()
	return do()
}

func (b *bench) clean() error {
	for _, name := range []string{"a", "b"} {
		_ = exec.Command(b.quarxfs, "umount", filepath.Join(b.work, name, "mnt")).Run() // it may not be mounted
	}
	return os.RemoveAll(b.work)
}

func output(name string, args ...string) (string, error) {
	var out, problem bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, problem.String())
	}
	return out.String(), nil
}

func (b *bench) node(name, addr string) (*node, error) {
	dir := filepath.Join(b.work, name)
	n := &node{b: b, store: filepath.Join(dir, "store"), mnt: filepath.Join(dir, "mnt")}
	if err := os.MkdirAll(n.mnt, 0o755); err != nil {
		return nil, err
	}
	if err := n.mount(); err != nil {
		return nil, err
	}
	var err error
	n.relay, err = listen(addr, n.store)
	return n, err
}

// pair returns two nodes, of which the first knows the second, at an address, as
// peer.
func (b *bench) pair(addr string) (src, dst *node, err error) {
	if src, err = b.node("a", "127.0.0.1:0"); err != nil {
		return nil, nil, err
	}
	if dst, err = b.node("b", addr); err != nil {
		return nil, nil, err
	}
	_, err = output(b.quarxfs, "remote", "add", src.store, "peer", dst.relay.url())
	return src, dst, err
}

func (n *node) mount() error {
	_, err := output(n.b.quarxfs, "mount", "--init", n.store, n.mnt)
	return err
}

// ask runs a command with --json and decodes what it prints.
func (b *bench) ask(into any, args ...string) error {
	out, err := output(b.quarxfs, append(args, "--json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

func (n *node) pid() (int, error) {
	var st struct {
		Daemon struct {
			PID int `json:"pid"`
		} `json:"daemon"`
	}
	err := n.b.ask(&st, "stats", n.store)
	return st.Daemon.PID, err
}

// killAndMount kills the daemon and mounts the store again.
func (n *node) killAndMount(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	_, _ = output("umount", "-l", n.mnt) // of a daemon that is gone
	return n.mount()
}

func (n *node) snapshot(name string) (fresh int64, err error) {
	var s struct {
		Totals struct {
			New int64 `json:"new_stored_bytes"`
		} `json:"totals"`
	}
	err = n.b.ask(&s, "snapshot", "create", n.mnt, name)
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
func sameTrees(a, b *node, name string) error {
	_, err := output("diff", "-r", "--no-dereference", filepath.Join(a.mnt, ".snapshots", name), filepath.Join(b.mnt, ".snapshots", name))
	return err
}

func (n *node) fsck() error {
	_, err := output(n.b.quarxfs, "fsck", n.store)
	return err
}
