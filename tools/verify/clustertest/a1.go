package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	mostCommands  = 5
	mostSetUpTime = time.Minute
)

// runA1 sets a cluster up as docs/cluster.md says, on machines that are there already.
func runA1(ctx context.Context, t *trial) (err error) {
	if err := t.leanProgram(); err != nil {
		return err
	}
	for t.result.Rounds < t.rounds && err == nil {
		err = t.setUp(ctx)
		t.result.Rounds++
	}
	return err
}

// leanProgram looks for names of gRPC and etcd in the programs: the table of functions has them,
// also when symbols were stripped.
func (t *trial) leanProgram() error {
	for _, p := range []struct {
		name string
		has  bool
	}{{"quarxfs", false}, {"quarxfs-node", true}} {
		b, err := os.ReadFile(filepath.Join(t.bin, p.name))
		if err != nil {
			return err
		}
		for _, word := range []string{"google.golang.org/grpc", "go.etcd.io/etcd"} {
			count := bytes.Count(b, []byte(word))
			t.require((count > 0) == p.has, "%s has %s %d times", p.name, word, count)
		}
		t.measured(p.name+" MB", float64(len(b)/100_000)/10)
	}
	return nil
}

func (t *trial) setUp(ctx context.Context) (err error) {
	if t.rig, err = newRig(ctx, t.work, t.bin, diskMiB); err != nil {
		return err
	}
	var nodes []*node
	for _, name := range []string{"n1", "n2", "n3"} {
		n, err := t.rig.node(ctx, name)
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	begun, commands := time.Now(), 0
	quarxfs := func(n *node, input string, args ...string) string {
		if err != nil {
			return ""
		}
		commands++
		var out string
		out, err = n.quarxfsWith(ctx, input, args...)
		t.say("%.1fs %s: quarxfs %s", time.Since(begun).Seconds(), n.name, strings.Join(args, " "))
		return out
	}
	quarxfs(nodes[0], "", "cluster", "init", "--name", "lab", "--zone", "rack1")
	tokens := strings.Fields(quarxfs(nodes[0], "", "cluster", "token", "--machines", "2"))
	if err == nil && len(tokens) != 2 {
		err = fmt.Errorf("%d tokens for two machines", len(tokens))
	}
	if err != nil {
		return err
	}
	quarxfs(nodes[1], tokens[0], "cluster", "join", "-", "--zone", "rack2")
	quarxfs(nodes[2], tokens[1], "cluster", "join", "-", "--zone", "rack3")
	quarxfs(nodes[0], "", "cluster", "volume", "create", volumeName, "--mount", mountpoint)
	if err != nil {
		return err
	}
	if err := writeSynced(nodes[0].path(filepath.Join(mountpoint, "first")), []byte("first\n")); err != nil {
		return err
	}
	written := time.Now()
	err = t.rig.await(ctx, 5*time.Minute, "the first file at a vault", func() error {
		v, _, err := nodes[1].volume(ctx, volumeName)
		if err != nil {
			return err
		}
		for _, c := range v.Vaults {
			// Begun after the fsync had returned, by the clock of the same machine.
			if c.Newest != nil && c.Newest.Created.After(written) {
				return nil
			}
		}
		return fmt.Errorf("no vault has a snapshot of after %s", written.Format(time.TimeOnly))
	})
	took := time.Since(begun)
	t.measured("commands", commands)
	t.measured("seconds to the first replicated file", took.Seconds())
	t.require(commands <= mostCommands, "%d commands", commands)
	t.require(took <= mostSetUpTime, "the first file was at a vault after %v", took)
	return err
}
