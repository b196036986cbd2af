package transport

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// mount mounts a filesystem at dir and returns the device's descriptor. With DirectMount it asks
// the kernel; if that refuses, and without, the helper that may mount for everybody.
func mount(dir string, o *fuse.MountOptions) (int, error) {
	var direct error
	if o.DirectMount || o.DirectMountStrict {
		var fd int
		if fd, direct = mountDirect(dir, o); direct == nil || o.DirectMountStrict {
			return fd, direct
		}
	}
	fd, err := mountByHelper(dir, o)
	if err != nil {
		return -1, errors.Join(direct, err)
	}
	return fd, nil
}

func mountDirect(dir string, o *fuse.MountOptions) (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return -1, err
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("/dev/fuse: %w", err)
	}
	flags := o.DirectMountFlags
	if flags == 0 {
		flags = unix.MS_NOSUID | unix.MS_NODEV
	}
	options := []string{
		fmt.Sprintf("fd=%d", fd), fmt.Sprintf("rootmode=%o", st.Mode&unix.S_IFMT),
		fmt.Sprintf("user_id=%d", os.Geteuid()), fmt.Sprintf("group_id=%d", os.Getegid()),
		fmt.Sprintf("max_read=%d", o.MaxWrite),
	}
	for _, option := range o.Options {
		if set, ok := mountFlags[option]; ok {
			flags = set(flags)
		} else {
			options = append(options, option)
		}
	}
	if o.AllowOther {
		options = append(options, "allow_other")
	}
	source := o.FsName
	if source == "" {
		source = o.Name
	}
	if err := unix.Mount(source, dir, "fuse."+o.Name, flags, strings.Join(options, ",")); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// mountFlags are the options that mount(2) takes as bits.
var mountFlags = map[string]func(uintptr) uintptr{
	"suid": clearFlag(unix.MS_NOSUID), "nosuid": setFlag(unix.MS_NOSUID),
	"dev": clearFlag(unix.MS_NODEV), "nodev": setFlag(unix.MS_NODEV),
	"exec": clearFlag(unix.MS_NOEXEC), "noexec": setFlag(unix.MS_NOEXEC),
}

func setFlag(bit uintptr) func(uintptr) uintptr   { return func(f uintptr) uintptr { return f | bit } }
func clearFlag(bit uintptr) func(uintptr) uintptr { return func(f uintptr) uintptr { return f &^ bit } }

// mountByHelper has fusermount3 mount, which hands the descriptor over through a socket.
func mountByHelper(dir string, o *fuse.MountOptions) (int, error) {
	bin, err := Helper()
	if err != nil {
		return -1, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	ours, theirs := pair[0], os.NewFile(uintptr(pair[1]), "socketpair")
	defer unix.Close(ours)
	options := append([]string{}, o.Options...)
	if o.AllowOther {
		options = append(options, "allow_other")
	}
	if o.FsName != "" {
		options = append(options, "fsname="+o.FsName)
	}
	options = append(options, "subtype="+o.Name, fmt.Sprintf("max_read=%d", o.MaxWrite))
	for i := range options { // a comma ends an option
		options[i] = strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(options[i])
	}
	cmd := exec.Command(bin, "-o", strings.Join(options, ","), "--", dir)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	var said strings.Builder
	cmd.Stderr = &said
	err = cmd.Run()
	theirs.Close() // or a helper that sends nothing would have us wait for ever
	if err != nil {
		return -1, fmt.Errorf("%s: %w: %s", bin, err, strings.TrimSpace(said.String()))
	}
	return receiveDescriptor(ours)
}

// Detach takes the filesystem at dir out of the tree. What is open in it stays until it is closed.
func Detach(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.MNT_DETACH)
	}
	bin, err := Helper()
	if err != nil {
		return err
	}
	if out, err := exec.Command(bin, "-u", "-z", "--", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("unmount %s: %w: %s", dir, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Helper finds the program that mounts for who is not root: exec.ErrNotFound.
func Helper() (string, error) {
	var first error
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "fusermount", "/bin/fusermount"} {
		bin, err := exec.LookPath(name)
		if err == nil {
			return bin, nil
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

func receiveDescriptor(socket int) (int, error) {
	var data [4]byte
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data[:], control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fusermount's answer: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err == nil && len(messages) == 1 {
		var fds []int
		if fds, err = unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, errors.Join(errors.New("fusermount has sent no descriptor"), err)
}
