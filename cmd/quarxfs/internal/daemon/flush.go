package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/owner"
)

// What programs have written may still be in the kernel's cache. syncfs(2) on any mount of the
// filesystem makes the kernel hand it over, to this process; so another process has to call it,
// which can be killed while it waits.

// FlushHelper is the command of that process.
const FlushHelper = "flush-helper"

// flush has the kernel hand over what was written to the mount, if there is one.
func (d *daemon) flush(ctx context.Context) error {
	if d.mount == nil {
		return nil
	}
	// Looked up each time: mounts come, go and are moved while the daemon lives.
	ways, err := waysTo(d.at.Device)
	if err != nil {
		return err
	}
	if len(ways) == 0 {
		return fmt.Errorf("what programs have written cannot be asked for: %s is mounted nowhere any more", d.opts.Mountpoint)
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe, append([]string{FlushHelper, d.at.Device}, ways...)...)
	cmd.Args[0] = os.Args[0]
	// One that waits in the kernel cannot be killed at once; its pipes must not keep this process.
	cmd.WaitDelay = time.Second
	var number, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &number, &said
	err = owner.AsCaller(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return flushError(d.opts.Mountpoint, err, number.String(), said.String())
	}
	return nil
}

// flushError is the kernel's error of the other process, by the number that it has printed.
func flushError(mountpoint string, err error, number, said string) error {
	n, nerr := strconv.Atoi(number)
	if nerr != nil {
		return fmt.Errorf("syncfs %s: %w: %s", mountpoint, err, said)
	}
	errno := syscall.Errno(n)
	err = &fs.PathError{Op: "write what programs have written to", Path: mountpoint, Err: errno}
	if errno == syscall.ENOSPC || errno == syscall.EDQUOT {
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	return err
}

// waysTo returns paths that may lead to the filesystem with a device: its mounts in this mount
// namespace, and those in others by way of a process in each.
func waysTo(device string) (ways []string, err error) {
	all, err := mounts.Namespaces()
	for _, ns := range all {
		root := "/"
		if ns.PID != "" {
			root = "/proc/" + ns.PID + "/root"
		}
		for _, m := range ns.Table {
			if m.Device == device {
				ways = append(ways, filepath.Join(root, m.Dir))
			}
		}
	}
	return ways, err
}

// Flush is what FlushHelper does with its arguments: DEVICE PATH... It prints the number of the
// kernel's error, if there is one.
func Flush(args []string) error {
	var errs []error
	for _, path := range args[1:] {
		err := syncPath(args[0], path)
		if err == nil {
			return nil // a filesystem has one cache, whichever mount leads to it
		}
		errs = append(errs, fmt.Errorf("%s: %w", path, err))
	}
	err := errors.Join(errs...)
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		fmt.Print(int(errno))
	}
	return err
}

// syncPath calls syncfs(2) on what is at a path, if that is on the filesystem with a device and not
// on one that hides it.
func syncPath(device, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if is := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)); is != device {
		return fmt.Errorf("it is on device %s and not on %s", is, device)
	}
	return unix.Syncfs(int(f.Fd()))
}
