package mounts

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Unmount unmounts what is mounted at a directory; flags are those of umount2(2). Who may not do so
// has fusermount3 do it. EBUSY: it is in use.
func Unmount(dir string, flags int) error {
	err := unix.Unmount(dir, flags)
	if !errors.Is(err, unix.EPERM) {
		if err != nil {
			err = fmt.Errorf("unmount %s: %w", dir, err)
		}
		return err
	}
	args := []string{"-u", dir}
	if flags&unix.MNT_DETACH != 0 {
		args = []string{"-u", "-z", dir}
	}
	out, err := exec.Command("fusermount3", args...).CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(out))
	// fusermount3 has one exit code for all, so its words have to say what is wrong.
	if strings.Contains(text, syscall.EBUSY.Error()) || strings.Contains(strings.ToLower(text), "busy") {
		return fmt.Errorf("%s: %w", text, syscall.EBUSY)
	}
	return fmt.Errorf("unmount %s: %w: %s", dir, err, text)
}
