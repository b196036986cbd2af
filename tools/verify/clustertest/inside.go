package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// machine is what the first process of a machine's namespaces makes of them.
type machine struct {
	Name string `json:"name"` // of the host
	Disk string `json:"disk"` // file with an ext4 for /var/lib/quarxfs; empty: this is the switch
}

const machineReady = "ready\n"

// newInside is the first process of a machine. When it ends, the kernel kills all others of the
// machine and takes its mounts, its network and its loop device away: nothing is left to undo.
func newInside() *cobra.Command {
	return &cobra.Command{
		Use: "inside", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var m machine
			if err := json.Unmarshal([]byte(args[0]), &m); err != nil {
				return err
			}
			if err := m.boot(); err != nil {
				return err
			}
			go reap()
			if _, err := io.WriteString(os.Stdout, machineReady); err != nil {
				return err
			}
			// It ends when the rig does, whatever the rig died of.
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		},
	}
}

// boot gives the machine a name, mounts of its own and its disk.
func (m machine) boot() error {
	// The namespace is a copy: without this, what is mounted here would be on the host, too.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Sethostname([]byte(m.Name)); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if m.Disk == "" {
		return nil
	}
	for _, dir := range []string{"/run", "/srv", "/var/lib"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := os.Mkdir("/var/lib/quarxfs", 0o755); err != nil {
		return err
	}
	// mount(8) makes the loop device such that it goes with its mount.
	if out, err := exec.Command("mount", "-o", "loop", m.Disk, "/var/lib/quarxfs").CombinedOutput(); err != nil {
		return fmt.Errorf("mount the disk: %w: %s", err, out)
	}
	return nil
}

// reap waits for the children of those who have died, as the first process has to.
func reap() {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	for {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
		<-died
	}
}
