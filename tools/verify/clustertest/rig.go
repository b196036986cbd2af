package main

import (
	"bufio"
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

	"golang.org/x/sys/unix"
)

// A rig is machines on a switch, each of them the namespaces of a process of ours: network, mounts,
// processes and a name, with a disk of its own. The host sees none of it.
type rig struct {
	dir     string // the disks' images, and what the machines write outside of them
	bin     string // quarxfs and quarxfs-node
	diskMiB int64
	bridge  *space // the switch
	nodes   map[string]*node
	disks   int // made so far
	ports   int // of the switch, made so far
}

// newRig makes a switch without machines, in a new directory of work.
func newRig(ctx context.Context, work, bin string, diskMiB int64) (*rig, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("namespaces and loop devices need root")
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(work, "clustertest-")
	if err != nil {
		return nil, err
	}
	r := &rig{dir: dir, bin: bin, diskMiB: diskMiB, nodes: make(map[string]*node)}
	if r.bridge, err = newSpace(machine{Name: "switch"}); err == nil {
		err = r.bridge.ip(ctx, "link add br0 type bridge", "link set br0 up", "link set lo up")
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// close ends all machines, and removes what was made. It needs no context: it is called when that
// is over, too.
func (r *rig) close() error {
	var errs []error
	for _, n := range r.nodes {
		errs = append(errs, n.space.close())
	}
	errs = append(errs, r.bridge.close())
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// node returns the machine of that name, which it makes with an empty disk if there is none.
func (r *rig) node(ctx context.Context, name string) (*node, error) {
	if n := r.nodes[name]; n != nil {
		return n, nil
	}
	n := &node{rig: r, name: name, index: len(r.nodes) + 1}
	if err := n.newDisk(ctx); err != nil {
		return nil, err
	}
	r.nodes[name] = n
	return n, n.start(ctx)
}

// disk makes an image with an empty ext4.
func (r *rig) disk(ctx context.Context) (string, error) {
	r.disks++
	path := filepath.Join(r.dir, fmt.Sprintf("disk-%d.img", r.disks))
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := errors.Join(f.Truncate(r.diskMiB<<20), f.Close()); err != nil {
		return "", err
	}
	_, err = output(exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=1", path))
	return path, err
}

// A space is the namespaces of one process, which all end when it does.
type space struct {
	cmd *exec.Cmd // lives until its standard input is closed, which the rig's own end does
}

// newSpace returns when the machine has booted.
func newSpace(m machine) (*space, error) {
	arg, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	var said strings.Builder
	cmd := exec.Command("/proc/self/exe", "inside", string(arg))
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setpgid:    true, // an interrupt from the terminal is for the rig, which then ends it in order
	}
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("namespaces for %s: %w", m.Name, err)
	}
	s := &space{cmd: cmd}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != machineReady {
		return nil, errors.Join(fmt.Errorf("%s does not boot: %w", m.Name, err), s.close(), errors.New(strings.TrimSpace(said.String())))
	}
	return s, nil
}

func (s *space) pid() int { return s.cmd.Process.Pid }

// close kills all processes of the machine at once, as a power cut does, and returns when they are
// gone. The second time it does nothing.
func (s *space) close() error {
	if s == nil || s.cmd.ProcessState != nil {
		return nil
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed, and says so
	return nil
}

// in is a command in the machine's namespaces.
func (s *space) in(ctx context.Context, args ...string) *exec.Cmd {
	enter := []string{"--target", fmt.Sprint(s.pid()), "--mount", "--uts", "--ipc", "--net", "--pid", "--wd=/", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.WaitDelay = time.Second // a daemon that keeps the output open is not waited for
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// ip changes the machine's network. The program runs outside of all but that, so it may name
// processes of the host.
func (s *space) ip(ctx context.Context, lines ...string) error {
	cmd := exec.CommandContext(ctx, "nsenter", "--target", fmt.Sprint(s.pid()), "--net", "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	_, err := output(cmd)
	return err
}

// output runs a command, and has its error say what the command said.
func output(cmd *exec.Cmd) (string, error) {
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), &commandError{args: cmd.Args, err: err, said: strings.TrimSpace(said.String())}
	}
	return out.String(), nil
}

// A commandError is a command that has failed.
type commandError struct {
	args []string
	err  error
	said string
}

func (e *commandError) Error() string {
	_, command, inside := strings.Cut(strings.Join(e.args, " "), " -- ")
	if !inside {
		command = strings.Join(e.args, " ")
	}
	return fmt.Sprintf("%s: %v: %s", command, e.err, e.said)
}

func (e *commandError) Unwrap() error { return e.err }
