// Package owner has a process that may do anything act, in a directory of somebody
// else, with no more than that one's rights.
//
// Who can write in a store's directory can put a symbolic link where a file of the
// store is opened next, and decides by its settings which directory is the cold
// tier and which file has a key. Looking first would not do: the link may come
// later, and Badger opens files by itself. So root has the kernel look, as the owner.
package owner

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/store/handle"
)

// ErrUnsafe: who can write in the directory could make whoever works there do harm.
var ErrUnsafe = errors.New("it is not safe to work in a directory that somebody else can write")

// Enter looks who can write in a store's directory, and who asks. From then on the
// process acts
//
//	as before        nobody but the caller and root can write there
//	as the owner     the caller is root, and the directory somebody else's
//	as before        the caller is not root; warning says who can write there besides
//
// until leave is called. In the last two cases no symbolic link is taken there. In
// the second what root's commands made there before becomes the owner's. A directory
// of root's that others can write is refused to root. Errors: ErrUnsafe.
//
// It changes the whole process, so one store is entered at a time. The directory is reached through
// its handle afterwards: the owner may not have a way to its path.
func Enter(held *handle.Dir) (leave func() error, warning string, err error) {
	leave = func() error { return nil }
	dir := held.Path()
	t := tree{me: uint32(os.Geteuid())}
	if err := unix.Stat(held.Join(), &t.top); err != nil {
		return leave, "", &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	foreign, open := t.top.Uid != t.me && t.top.Uid != 0, t.top.Mode&0o022 != 0
	switch {
	case !foreign && !open:
		return leave, "", nil
	case !foreign && t.me == 0:
		return leave, "", fmt.Errorf("%s: %w: it is root's, and its mode is %04o: chmod go-w it, once nobody else has put anything there",
			dir, ErrUnsafe, t.top.Mode&0o7777)
	// Root in somebody else's directory: what root's commands left there is given to the owner,
	// then root acts as the owner.
	case foreign && t.me == 0:
		t.give = true
	case foreign:
		warning = fmt.Sprintf("%s belongs to user %d, who can change what is read here", dir, t.top.Uid)
	default:
		warning = fmt.Sprintf("%s can be written by others (mode %04o), who can change what is read here; chmod go-w it", dir, t.top.Mode&0o7777)
	}
	// O_PATH is enough to look, and opens nothing that somebody has put there.
	fd, err := unix.Open(held.Join(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return leave, "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	err = t.inspect(fd, dir, storeNames)
	unix.Close(fd)
	if err != nil {
		return leave, "", err
	}
	if !t.give {
		return leave, warning, nil
	}
	// Last, as giving files away needs root's rights.
	leave, err = become(t.top.Uid, t.top.Gid)
	return leave, "", err
}

// storeNames are what a store has in its directory, as patterns: nothing else there is given away.
var storeNames = []string{
	"db", "db.*", "hot", "spool", "lock", "control.sock", "quarxfs.json*", "quarxfs.log*",
	"settings.json*", "tiers.json*", "tokens.json*", "heat*", "listen.pem*", "cache.json", "snapshots.json", "blocks",
}

// A tree is a store's directory that is looked through.
type tree struct {
	me   uint32
	top  unix.Stat_t
	give bool // what is root's becomes the owner's
}

// inspect looks at what is in a directory: names that fit one of the patterns, or all. ErrUnsafe:
// there is a symbolic link.
func (t *tree) inspect(fd int, path string, patterns []string) error {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/self/fd/%d", fd))
	if errors.Is(err, os.ErrPermission) {
		return nil // whoever may not list it cannot open it, either
	}
	if err != nil {
		return &os.PathError{Op: "readdir", Path: path, Err: errors.Unwrap(err)}
	}
	for _, e := range entries {
		if !fits(e.Name(), patterns) {
			continue
		}
		if err := t.inspectOne(fd, e.Name(), filepath.Join(path, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func fits(name string, patterns []string) bool {
	for _, p := range patterns {
		if ok, _ := filepath.Match(p, name); ok {
			return true
		}
	}
	return len(patterns) == 0
}

func (t *tree) inspectOne(dir int, name, path string) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFLNK {
		return fmt.Errorf("%s: %w: it is a symbolic link: remove it, or have the store's owner open the store", path, ErrUnsafe)
	}
	// A file with another name may be anybody's, linked here; one with this name only is of
	// this directory, whose owner could as well remove it.
	if t.give && st.Uid == 0 && st.Dev == t.top.Dev && (kind == unix.S_IFDIR || kind == unix.S_IFREG && st.Nlink == 1 || kind == unix.S_IFSOCK) {
		if err := unix.Fchownat(fd, "", int(t.top.Uid), int(t.top.Gid), unix.AT_EMPTY_PATH); err != nil && !errors.Is(err, unix.EROFS) {
			return &os.PathError{Op: "chown", Path: path, Err: err}
		}
	}
	if kind != unix.S_IFDIR || st.Dev != t.top.Dev {
		return nil
	}
	return t.inspect(fd, path, nil)
}

// become gives all threads the rights of a user, and of its groups. The real user stays root: the
// user must not be able to send signals, and root's rights can be had back.
func become(uid, gid uint32) (leave func() error, err error) {
	before, err := syscall.Getgroups()
	if err != nil {
		return nil, err
	}
	back := func() error {
		return errors.Join(syscall.Setresuid(-1, 0, -1), syscall.Setresgid(-1, syscall.Getgid(), -1), syscall.Setgroups(before))
	}
	// Groups first, while it may; the user last, after which nothing more may be changed.
	err = syscall.Setgroups(groupsOf(uid, gid))
	if err == nil {
		err = syscall.Setresgid(-1, int(gid), -1)
	}
	if err == nil {
		err = syscall.Setresuid(-1, int(uid), -1)
	}
	if err != nil {
		err = fmt.Errorf("%w: it belongs to user %d, as whom root cannot act here: %w", ErrUnsafe, uid, err)
		// Half done is no state to go on in: all is taken back.
		return func() error { return nil }, errors.Join(err, back())
	}
	return back, nil
}

func groupsOf(uid, gid uint32) []int {
	groups := []int{int(gid)}
	u, err := user.LookupId(strconv.Itoa(int(uid)))
	if err != nil {
		return groups
	}
	ids, _ := u.GroupIds()
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil && n != int(gid) {
			groups = append(groups, n)
		}
	}
	return groups
}

// Acting reports whether this goroutine acts as somebody else than the caller.
func Acting() bool { return os.Getuid() == 0 && os.Geteuid() != 0 }

// AsCaller runs fn with the rights of who has started the process, on this goroutine alone: for
// a file that the caller has named, the mountpoint, and programs that are started. fn must leave
// no work to other goroutines.
func AsCaller(fn func() error) error {
	if !Acting() {
		return fn()
	}
	uid, gid := os.Geteuid(), os.Getegid()
	// The thread is this goroutine's alone meanwhile, and no other thread is made from it.
	runtime.LockOSThread()
	if err := setThread(0, os.Getgid()); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err := fn()
	if back := setThread(uid, gid); back != nil {
		// The thread ends with its goroutine, since it stays locked.
		panic(fmt.Sprintf("cannot give root's rights up again: %v", back))
	}
	runtime.UnlockOSThread()
	return err
}

// setThread sets what this thread acts as. The package syscall would set that of all threads. Root
// first, so that it may set its group as well.
func setThread(uid, gid int) error {
	same := ^uintptr(0)
	set := func(nr, id int) error {
		if _, _, errno := unix.RawSyscall(uintptr(nr), same, uintptr(id), same); errno != 0 {
			return errno
		}
		return nil
	}
	if uid == 0 {
		return errors.Join(set(unix.SYS_SETRESUID, uid), set(unix.SYS_SETRESGID, gid))
	}
	return errors.Join(set(unix.SYS_SETRESGID, gid), set(unix.SYS_SETRESUID, uid))
}
