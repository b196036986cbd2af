package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/tools/serve"
	"github.com/quarxtor/quarxfs/tools/verify/crash/history"
)

// A disk is an ext4 on a loop device whose content can be copied in an instant,
// all that runs on it running on: its image lies on an XFS, which shares a
// copy's extents, itself in an image. The copies are what the device had been
// given, without what the kernel still held back.
//
//	root/outer.img   the XFS
//	root/outer/      where it is mounted, with disk.img, the ext4, and its copies
//	root/disk/       where the ext4 is mounted
//
// Loop devices are detached as soon as they are mounted, which the kernel puts
// off until they are unmounted: so a mount is all that can be left behind.
type disk struct {
	root, outer, dir, image string
	options                 string
}

// outerSize is for a sparse file, of which little is ever written.
const outerSize = 64 << 30

// newDisk makes and mounts a disk in a directory of its own under work.
func newDisk(work string, size int64, options string) (d *disk, err error) {
	for _, program := range []string{"mkfs.xfs", "mkfs.ext4", "losetup", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("--powercut needs %s (packages xfsprogs, e2fsprogs, mount): %w", program, err)
		}
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("--powercut needs root, for loop devices")
	}
	// Before anything is made: from here on close has to know what there is.
	if err := os.MkdirAll(work, 0o755); err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp(work, "quarxfs-disk-")
	if err != nil {
		return nil, err
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	d = &disk{root: root, outer: filepath.Join(root, "outer"), dir: filepath.Join(root, "disk"), options: options}
	d.image = filepath.Join(d.outer, "disk.img")
	// A step that fails leaves mounts of the steps before it.
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	outer := filepath.Join(root, "outer.img")
	err = errors.Join(os.Mkdir(d.outer, 0o755), os.Mkdir(d.dir, 0o755), sparse(outer, outerSize))
	if err != nil {
		return d, err
	}
	// Reflinks are what lets a copy of the image take no time and be of one instant.
	if err := command("mkfs.xfs", "-q", "-m", "reflink=1", outer); err != nil {
		return d, err
	}
	// Through the page cache: nothing of this filesystem has to survive, and direct I/O below it
	// would be done twice.
	if err := mountImage(outer, d.outer, "xfs", "defaults", "off"); err != nil {
		return d, fmt.Errorf("--powercut needs a kernel with XFS: %w", err)
	}
	if err := sparse(d.image, size); err != nil {
		return d, err
	}
	if err := command("mkfs.ext4", "-q", d.image); err != nil {
		return d, err
	}
	return d, d.mount()
}

// store is where the disk holds the store.
func (d *disk) store() string { return filepath.Join(d.dir, "store") }

func sparse(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// mount makes the image's filesystem available, with direct I/O below, so that
// nothing of what the device was given waits in the cache of the XFS.
func (d *disk) mount() error { return mountImage(d.image, d.dir, "ext4", d.options, "on") }

func (d *disk) unmount() error { return unmountWhole(d.dir) }

func mountImage(image, dir, kind, options, direct string) error {
	device, err := output("losetup", "--find", "--show", "--direct-io="+direct, image)
	if err != nil {
		return err
	}
	// Detached at once and even when the mount failed, so that no device is left.
	return errors.Join(command("mount", "-t", kind, "-o", options, device, dir), command("losetup", "--detach", device))
}

// unmountWhole waits for processes that are just being killed to let go.
func unmountWhole(dir string) error {
	on, err := serve.Mounted(dir)
	if err != nil || !on {
		return err
	}
	for end := time.Now().Add(hangTime); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Unmount(dir, 0)
		if err == nil {
			return nil
		}
		// Not lazily: the disk must be written and closed before its image takes another's place.
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return fmt.Errorf("umount %s: %w", dir, err)
		}
	}
}

// copyTo makes another image of the device as it is at one instant.
func (d *disk) copyTo(name string) (cut history.Cut, err error) {
	src, err := os.Open(d.image)
	if err != nil {
		return cut, err
	}
	defer src.Close()
	dst, err := os.Create(name)
	if err != nil {
		return cut, err
	}
	// The two times enclose the clone: what was acknowledged before the first is in it, what began
	// after the second is not.
	cut.Began = clock()
	err = unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
	cut.Ended = clock()
	if err != nil {
		err = fmt.Errorf("FICLONE %s: %w", d.image, err)
	}
	return cut, errors.Join(err, dst.Close())
}

// copyName is where the nth image of a round is kept.
func (d *disk) copyName(n int) string { return filepath.Join(d.outer, fmt.Sprintf("copy-%d.img", n)) }

// replace makes a copy of an image the disk, as after a power cut: ext4 replays
// its journal. The image itself stays as it is, for an inquest.
func (d *disk) replace(image string) error {
	if err := d.unmount(); err != nil {
		return err
	}
	// A new file: the device of the old one may still be closing.
	if err := os.Remove(d.image); err != nil {
		return err
	}
	from := *d
	from.image = image
	if _, err := from.copyTo(d.image); err != nil {
		return err
	}
	return d.mount()
}

// stir lets the kernel begin to write back random parts of what it holds, as it
// may at any time: so that copies have some of what was never synced, and not
// only none of it.
func (d *disk) stir(rng *rand.Rand) {
	_ = filepath.WalkDir(d.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || rng.IntN(2) == 0 {
			return nil // files come and go
		}
		f, err := os.OpenFile(name, os.O_RDONLY, 0)
		if err != nil {
			return nil
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Size() > 0 {
			// A range and not the file: half of a file written back is what a power cut leaves.
			from := rng.Int64N(info.Size()) &^ (history.PageSize - 1)
			// It starts the write and waits for none, and so promises nothing.
			_ = unix.SyncFileRange(int(f.Fd()), from, 1+rng.Int64N(info.Size()-from), unix.SYNC_FILE_RANGE_WRITE)
		}
		return nil
	})
}

// keep saves an image from close.
func (d *disk) keep(image, dir string) error {
	return command("cp", "--sparse=always", image, filepath.Join(dir, "disk.img"))
}

// close unmounts and removes all that was made.
func (d *disk) close() error {
	if err := errors.Join(d.unmount(), unmountWhole(d.outer)); err != nil {
		// Removing a directory with a mount below it would empty the mounted filesystem.
		return errors.Join(err, fmt.Errorf("left %s in place", d.root))
	}
	return os.RemoveAll(d.root)
}

func command(name string, args ...string) error {
	_, err := output(name, args...)
	return err
}

// output runs to the end what an interrupt from the terminal must not stop half
// way.
func output(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	// A group of its own, which the terminal's interrupt does not reach.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
