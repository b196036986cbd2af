package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/internal/buildinfo"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/fs"
	"github.com/quarxtor/quarxfs/store"
)

// mountOptions are those of the commands that become daemons, as flags set them.
type mountOptions struct {
	daemon.Options
	listen     listenOptions
	init       bool
	foreground bool
	dryRun     bool
	memory     byteSize
	cache      string // where blocks of a URL are kept
	cacheSize  byteSize
}

func newMount() *cobra.Command {
	o := newMountOptions()
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "mount STORE|URL MOUNTPOINT",
		Short: "Mount a store",
		Long: `Mounts the store in the directory STORE at the empty directory MOUNTPOINT, and
returns when the mount answers. A daemon serves it and logs to STORE/quarxfs.log.
SIGTERM, SIGINT and SIGHUP make the daemon commit and end, even with files open.

Changes that are not yet committed are lost when the machine or the daemon dies. fsync
commits at once.

The store's policy says when snapshots are made (quarxfs snapshot policy). --snapshot-every
sets another interval while this mount lasts; 0s makes none.

--listen accepts clients that hold a token, as quarxfs serve does, and prints the address.

A URL mounts the snapshots of a server, read-only, each as a directory. Blocks are fetched
when they are read, and kept in the directory --cache. What is there can be read while the
server does not answer. The environment has the token and certificates: see quarxfs help stores.`,
		Example: `  quarxfs mount /srv/store /mnt
  quarxfs mount --init --memory 1GiB -o noatime,nosuid /srv/store /mnt
  quarxfs mount https://nas:7440 /mnt/nas --cache /var/cache/nas`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// 0s is a value of its own, none; so whether it was given has to be asked.
			if cmd.Flags().Changed("snapshot-every") {
				o.SnapshotEvery = &every
			}
			return o.run(cmd, args[0], args[1])
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.init, "init", false, "create the store first if there is none")
	f.BoolVar(&o.foreground, "foreground", false, "serve in this process and log to standard error")
	f.BoolVar(&o.dryRun, "dry-run", false, "only check whether it could be mounted, as mount -f does")
	f.BoolVar(&o.AllowOther, "allow-other", false, "allow other users, as a mount by root always does")
	listVar(f, &o.MountOptions, "options", "o", "`options` as of mount(8): ro, nosuid, nodev, noexec; and all flags, such as noatime,memory=1GiB,commit_interval=10s")
	o.addStoreFlags(f)
	f.BoolVar(&o.NoAtime, "noatime", false, "do not update access times when files are read")
	namedVar(f, &o.Snapshots, snapshotDirs, "who", "snapshot-dir", "who sees .snapshots: visible lists it, hidden does not, root-only keeps others out")
	o.ReadAhead = 4096
	numberVar(f, &o.ReadAhead, 0, maxReadAhead, "read-ahead", "`KiB` that the kernel reads ahead; only root can set more than 128")
	o.Transport = fs.Device
	namedVar(f, &o.Transport, transports, "how", "transport",
		"how requests of the kernel come: device; ring: over io_uring, experimental; auto: ring where the kernel is known to be good")
	timeVar(f, timeFlag{to: &every, least: time.Second, zero: "none"}, "snapshot-every", "`interval` of automatic snapshots for this mount, in place of the policy's, such as 1h")
	f.BoolVar(&o.Debug, "debug", false, "log every request")
	f.StringVar(&o.listen.Addr, "listen", "", "accept clients at this `address`, such as :7440")
	o.listen.addFlags(f)
	f.StringVar(&o.cache, "cache", "", "`directory` for blocks of a URL (default: quarxfs/HOST in the user's cache directory)")
	sizeVar(f, sizeFlag{to: &o.cacheSize, least: 1 << 20, example: "10GiB"}, "cache-size", "largest size of --cache")
	// For daemon.Start alone: the descriptor at which the parent waits.
	numberVar(f, &o.ReadyFD, -1, most, "ready-fd", "")
	_ = f.MarkHidden("ready-fd")
	// Flags that make no sense in fstab are no options of mount(8).
	for _, name := range []string{"foreground", "dry-run", "options"} {
		_ = f.SetAnnotation(name, notAnOption, []string{})
	}
	return cmd
}

// maxReadAhead is the most KiB that --read-ahead takes: more than any disk gains from.
const maxReadAhead = 1 << 20

func newMountOptions() *mountOptions {
	return &mountOptions{
		Options: daemon.Options{CommitInterval: 5 * time.Second, ReadyFD: -1, Version: buildinfo.Version(), Host: hostname(), Dial: dialRemote, Explain: explain},
		memory:  256 << 20, cacheSize: 10 << 30,
	}
}

// addStoreFlags are those of a process that holds a store.
func (o *mountOptions) addStoreFlags(f *pflag.FlagSet) {
	memoryVar(f, &o.memory, daemon.MinMemory, "memory", "memory that the daemon may use for caches, buffers and its database")
	timeVar(f, timeFlag{to: &o.CommitInterval, least: 10 * time.Millisecond, most: 24 * time.Hour}, "commit-interval", "longest time that a change stays uncommitted")
}

func (o *mountOptions) run(cmd *cobra.Command, arg, mountpoint string) error {
	// This is the daemon: whatever happens, the parent is told, which else would wait.
	if o.ReadyFD >= 0 {
		return o.Report(o.prepareAndServe(cmd, arg, mountpoint))
	}
	if o.foreground || o.dryRun {
		return o.prepareAndServe(cmd, arg, mountpoint)
	}
	// From the very arguments, not from flags: what they are parsed to here they are parsed to
	// there.
	args, _, err := asHelper(os.Args)
	if err != nil {
		return err
	}
	return daemon.Start(cmd.Context(), args, cmd.OutOrStdout(), cmd.ErrOrStderr())
}

// serve becomes the daemon.
func (o *mountOptions) serve(cmd *cobra.Command) error {
	o.Memory, o.CacheSize, o.Listen = int64(o.memory), int64(o.cacheSize), o.listen.Listen
	return daemon.Serve(cmd.Context(), &o.Options, cmd.OutOrStdout(), cmd.ErrOrStderr())
}

func (o *mountOptions) prepareAndServe(cmd *cobra.Command, arg, mountpoint string) error {
	if err := o.splitOptions(cmd); err != nil {
		return err
	}
	isNew, err := asked(cmd.Context(), hangTime, []string{arg, mountpoint}, func() (isNew bool, err error) {
		if isURL(arg) {
			return false, o.prepareURL(cmd, arg, mountpoint)
		}
		return o.prepare(arg, mountpoint)
	})
	if err == nil && isNew {
		if err = notNested(cmd.Context(), o.Store); err == nil {
			// What would fail later would leave a store behind.
			err = o.listen.Try(cmd.Context())
		}
		if err == nil && !o.dryRun {
			err = initStore(o.Store, store.DefaultConfig(), os.Stderr)
		}
	}
	if err != nil || o.dryRun {
		return err
	}
	return o.serve(cmd)
}

// prepare checks all that can be checked before the store is touched, or made: isNew.
func (o *mountOptions) prepare(arg, mountpoint string) (isNew bool, err error) {
	if err := o.validate(); err != nil {
		return false, err
	}
	if o.Mountpoint, err = mounts.Resolve(mountpoint); err != nil {
		return false, err
	}
	// The store is looked for before the mountpoint is judged: a misspelt store is the likelier
	// fault.
	err = o.findStore(arg)
	isNew = o.init && errors.Is(err, store.ErrNotStore)
	if err != nil && !isNew {
		return false, err
	}
	if err := fs.CheckMountpoint(o.Mountpoint); err != nil {
		return false, err
	}
	// A mount over the store would hide it; one inside would be written to by what it shows.
	if contains(o.Store, o.Mountpoint) || contains(o.Mountpoint, o.Store) {
		return false, fmt.Errorf("%w: %s and the store %s contain each other; choose another directory", fs.ErrMountpoint, o.Mountpoint, o.Store)
	}
	// Before --init makes a store that could not be mounted.
	if err := openFUSE(); err != nil {
		return false, err
	}
	return isNew, nil
}

// validate reports options that make no sense, wherever the store is.
func (o *mountOptions) validate() error {
	return o.listen.prepare()
}

// findStore sets the store. store.ErrNotStore: there is none, which may be made.
func (o *mountOptions) findStore(arg string) (err error) {
	if o.Store, err = mounts.Resolve(arg); err != nil {
		return err
	}
	_, err = store.ReadConfig(o.Store)
	if errors.Is(err, store.ErrNotStore) || errors.Is(err, errNotDir) {
		return explainNoStore(arg, err)
	}
	return err
}

func openFUSE() error {
	_, err := os.Stat("/dev/fuse")
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: /dev/fuse is missing; load the fuse module, or start the container with --device /dev/fuse", fs.ErrNoFUSE)
	}
	if os.Geteuid() != 0 {
		// fusermount3 mounts with rights of its own, but opens the device with those of its user.
		if err := unix.Access("/dev/fuse", unix.R_OK|unix.W_OK); err != nil {
			return fmt.Errorf("%w: user %d may not use /dev/fuse: %v; have root give the right, as chmod 666 /dev/fuse does", fs.ErrNoFUSE, os.Geteuid(), err)
		}
		return nil
	}
	// Root has every right by mode; only opening shows whether a container allows the device.
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %v; give this container or machine the right to use it", fs.ErrNoFUSE, err)
	}
	return f.Close()
}

// splitOptions takes those options of mount(8) that are not the kernel's: each
// flag is one, too.
func (o *mountOptions) splitOptions(cmd *cobra.Command) error {
	var kernel []string
	// mount(8) hands on all that fstab says: some options are the kernel's, some nobody's, the rest
	// flags.
	for _, opt := range o.MountOptions {
		switch opt {
		case "ro", "suid", "nosuid", "dev", "nodev", "exec", "noexec":
			kernel = append(kernel, opt)
		case "", "rw", "defaults", "auto", "noauto", "user", "users", "owner", "group", "nofail", "_netdev", "relatime", "strictatime", "atime", "async":
		case "remount":
			return fmt.Errorf("%w: a mount cannot be changed; unmount it and mount it again", errUsage)
		default:
			known, err := setOption(cmd, opt)
			if err != nil {
				return err
			}
			if !known && !ignored(opt) {
				return fmt.Errorf("%w: mount option %q is not known; see quarxfs mount --help", errUsage, opt)
			}
		}
	}
	o.MountOptions = kernel
	return nil
}

// ignored reports what /etc/fstab says to others.
func ignored(option string) bool {
	for _, prefix := range []string{"x-", "X-", "user=", "comment="} {
		if strings.HasPrefix(option, prefix) {
			return true
		}
	}
	return false
}

func hostname() string {
	name, _ := os.Hostname() // none is no harm
	return name
}
