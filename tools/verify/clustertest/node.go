package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

// A node is a machine of the rig.
type node struct {
	rig   *rig
	name  string
	index int
	disk  string // file with its ext4
	space *space
}

func (n *node) address() string { return fmt.Sprintf("10.77.0.%d", n.index) }

func mac(index int) string { return fmt.Sprintf("02:77:00:00:00:%02x", index) }

// nowhere is the address of no machine: what is sent to it is dropped, and the sender is told
// nothing, as by a cable that is cut somewhere else.
const nowhere = "02:ff:ff:ff:ff:ff"

// start boots the machine with its disk as it is.
func (n *node) start(ctx context.Context) error {
	s, err := newSpace(machine{Name: n.name, Disk: n.disk})
	if err != nil {
		return err
	}
	n.space = s
	// The port of before may be there still: the kernel removes a network some time after its last
	// process.
	n.rig.ports++
	port := "port" + strconv.Itoa(n.rig.ports)
	err = n.rig.bridge.ip(ctx,
		fmt.Sprintf("link add %s type veth peer name eth0 address %s netns %d", port, mac(n.index), s.pid()),
		"link set "+port+" master br0 up")
	if err == nil {
		err = s.ip(ctx, "link set lo up", "address add "+n.address()+"/24 dev eth0", "link set eth0 up")
	}
	if err == nil {
		err = os.Mkdir(n.path("/srv/home"), 0o755)
	}
	if err != nil {
		return fmt.Errorf("the network of %s: %w", n.name, err)
	}
	return nil
}

// kill ends the machine at once; its disk stays.
func (n *node) kill() error { return n.space.close() }

// newDisk gives the machine, which must be off, an empty disk in the place of what it had.
func (n *node) newDisk(ctx context.Context) error {
	if n.disk != "" {
		if err := os.Remove(n.disk); err != nil {
			return err
		}
	}
	var err error
	n.disk, err = n.rig.disk(ctx)
	return err
}

// path is where the rig sees a file of the machine.
func (n *node) path(inside string) string {
	return fmt.Sprintf("/proc/%d/root%s", n.space.pid(), inside)
}

// setLinks has what this machine sends to others arrive there, or be lost.
func (n *node) setLinks(ctx context.Context, arrives bool, to ...*node) error {
	var lines []string
	for _, other := range to {
		at := nowhere
		if arrives {
			at = mac(other.index)
		}
		lines = append(lines, fmt.Sprintf("neighbour replace %s lladdr %s nud permanent dev eth0", other.address(), at))
	}
	return n.space.ip(ctx, lines...)
}

// cut separates machines in both directions.
func cut(ctx context.Context, n *node, others ...*node) error { return link(ctx, false, n, others) }

// reconnect takes a cut back.
func reconnect(ctx context.Context, n *node, others ...*node) error {
	return link(ctx, true, n, others)
}

func link(ctx context.Context, arrives bool, n *node, others []*node) error {
	errs := []error{n.setLinks(ctx, arrives, others...)}
	for _, o := range others {
		errs = append(errs, o.setLinks(ctx, arrives, n))
	}
	return errors.Join(errs...)
}

// quarxfs runs the program on the machine, and returns what it has printed.
func (n *node) quarxfs(ctx context.Context, args ...string) (string, error) {
	return n.quarxfsWith(ctx, "", args...)
}

func (n *node) quarxfsWith(ctx context.Context, input string, args ...string) (string, error) {
	cmd := n.space.in(ctx, append([]string{filepath.Join(n.rig.bin, "quarxfs")}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	return output(cmd)
}

// agent talks to the machine's agent as an administrator there does.
func (n *node) agent() *client.Agent { return client.Local(n.path(client.DefaultDir)) }

// status asks the machine's agent, and says how long the answer took.
func (n *node) status(ctx context.Context) (health.Status, time.Duration, error) {
	a := n.agent()
	defer a.Close()
	begun := time.Now()
	s, err := a.Status(ctx)
	return s, time.Since(begun), err
}

// volume is what the machine's agent says of a volume.
func (n *node) volume(ctx context.Context, name string) (health.Volume, health.Status, error) {
	s, _, err := n.status(ctx)
	if err != nil {
		return health.Volume{}, s, err
	}
	i := slices.IndexFunc(s.Volumes, func(v health.Volume) bool { return v.Name == name })
	if i < 0 {
		return health.Volume{}, s, fmt.Errorf("%s knows of no volume %s", n.name, name)
	}
	return s.Volumes[i], s, nil
}

// processes are those of the machine whose arguments begin so, by the host's numbers.
func (n *node) processes(program string, args ...string) (pids []int, err error) {
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", n.space.pid()))
	if err != nil {
		return nil, err
	}
	all, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		return nil, err
	}
	for _, path := range all {
		if is, err := os.Readlink(path); err != nil || is != own {
			continue // of another machine, or gone by now
		}
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil {
			return nil, err
		}
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		words := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		if filepath.Base(words[0]) == program && len(words) > len(args) && slices.Equal(words[1:len(args)+1], args) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// signal sends one to the agent, or to the daemons of mounts, and reports that there is none.
func (n *node) signal(sig unix.Signal, program string, args ...string) error {
	pids, err := n.processes(program, args...)
	if err == nil && len(pids) == 0 {
		err = fmt.Errorf("%s runs no %s %s", n.name, program, strings.Join(args, " "))
	}
	for _, pid := range pids {
		err = errors.Join(err, unix.Kill(pid, sig))
	}
	return err
}

func (n *node) signalAgent(sig unix.Signal) error { return n.signal(sig, "quarxfs-node", "run") }
