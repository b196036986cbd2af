package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mounted tells whether something is mounted at dir, asking the kernel's table
// and not the directory, since a dead daemon's mount answers nothing.
func Mounted(dir string) (bool, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false, err
	}
	points, err := mountpoints()
	if err != nil {
		return false, err
	}
	for _, p := range points {
		if p == dir {
			return true, nil
		}
	}
	return false, nil
}

func mountsUnder(root string) ([]string, error) {
	points, err := mountpoints()
	if err != nil {
		return nil, err
	}
	var inside []string
	for _, p := range points {
		if p == root || strings.HasPrefix(p, root+"/") {
			inside = append(inside, p)
		}
	}
	return inside, nil
}

func mountpoints() ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountinfo(string(table)), nil
}

// parseMountinfo returns the fifth field of each line of proc_pid_mountinfo(5).
func parseMountinfo(table string) []string {
	var points []string
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > 4 {
			points = append(points, unescape.Replace(f[4]))
		}
	}
	return points
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// busyTime is how long a mount may be busy: go-fuse's servers open a file in
// their own mount just after they have mounted it.
const busyTime = 5 * time.Second

// unmount asks for an orderly unmount; as a user through fusermount3.
func unmount(ctx context.Context, dir string) error {
	var err error
	poll(ctx, busyTime, func() bool {
		err = unix.Unmount(dir, 0)
		return !errors.Is(err, unix.EBUSY)
	})
	if errors.Is(err, unix.EPERM) {
		return fusermount("-u", dir)
	}
	if err != nil {
		return fmt.Errorf("umount %s: %w", dir, err)
	}
	return nil
}

// abort ends the requests that a daemon that was killed has not answered. They
// may be its own: then it cannot leave before they end, and they not before it
// leaves.
func abort(dir string) {
	if on, err := Mounted(dir); err == nil && on {
		_ = unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH)
	}
}

// Detach takes whatever is mounted at dir out of the tree, busy, dead or alive.
func Detach(dir string) error {
	for {
		on, err := Mounted(dir)
		if err != nil || !on {
			return err
		}
		err = unix.Unmount(dir, unix.MNT_DETACH)
		if errors.Is(err, unix.EPERM) {
			err = fusermount("-uz", dir)
		}
		if err != nil {
			return fmt.Errorf("lazy umount %s: %w", dir, err)
		}
	}
}

func fusermount(flag, dir string) error {
	out, err := exec.Command("fusermount3", flag, dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3 %s %s: %w: %s", flag, dir, err, out)
	}
	return nil
}
