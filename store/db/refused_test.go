package db

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A refusal has the kernel answer system calls with an errno, from here to the end of the process.
type refusal struct {
	call uint32
	no   syscall.Errno
	arg  int    // only where this argument has one of the bits, where mask is not 0
	mask uint32 // low half
}

// begin installs a filter for all threads.
func (r refusal) begin() error {
	ins := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: r.call, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if r.mask != 0 {
		ins = append(ins,
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(16 + 8*r.arg)},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: r.mask, Jt: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	}
	ins = append(ins, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(r.no)})
	runtime.LockOSThread() // both calls are of one thread
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(ins)), Filter: &ins[0]}
	_, _, no := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if no != 0 {
		return no
	}
	return nil
}

// TestRefused has the kernel refuse one system call after the other, for a reason that says
// nothing of what is in a file, to a process that looks at a database, opens it for reading only,
// and opens it. None of them is told as damage.
func TestRefused(t *testing.T) {
	const env, dir = "QUARXFS_TEST_REFUSED", "QUARXFS_TEST_DIR"
	calls := map[string]refusal{
		"truncating a file":       {call: unix.SYS_FTRUNCATE},
		"the state of a file":     {call: unix.SYS_FSTAT},
		"the state of a name":     {call: unix.SYS_NEWFSTATAT},
		"listing a directory":     {call: unix.SYS_GETDENTS64},
		"reading":                 {call: unix.SYS_READ},
		"reading at an offset":    {call: unix.SYS_PREAD64},
		"writing at an offset":    {call: unix.SYS_PWRITE64},
		"opening for writing":     {call: unix.SYS_OPENAT, arg: 2, mask: unix.O_RDWR | unix.O_WRONLY},
		"making a file":           {call: unix.SYS_OPENAT, arg: 2, mask: unix.O_CREAT},
		"opening without links":   {call: unix.SYS_OPENAT, arg: 2, mask: unix.O_NOFOLLOW},
		"mapping a shared file":   {call: unix.SYS_MMAP, arg: 3, mask: unix.MAP_SHARED},
		"syncing":                 {call: unix.SYS_FSYNC},
		"allocating":              {call: unix.SYS_FALLOCATE},
		"looking for permissions": {call: unix.SYS_FACCESSAT2},
		"renaming":                {call: unix.SYS_RENAMEAT},
		"removing":                {call: unix.SYS_UNLINKAT},
	}
	const noFilters = 77 // what the child ends with where nothing can be refused
	reasons := []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.ENOMEM}
	if name := os.Getenv(env); name != "" {
		r := calls[name]
		r.no = reasons[len(name)%len(reasons)]
		if err := r.begin(); err != nil {
			fmt.Println(err)
			os.Exit(noFilters)
		}
		opt := Options{Dir: os.Getenv(dir), MemTable: 8 << 20}
		_, err := Inspect(opt.Dir, opt.Uncompressed)
		for _, opt.ReadOnly = range []bool{true, false} {
			d, oerr := Open(opt)
			if oerr == nil && opt.ReadOnly {
				oerr = d.Close() // the other one cannot be closed, and ends with the process
			}
			err = errors.Join(err, oerr)
		}
		if _, ok := errors.AsType[syscall.Errno](err); errors.Is(err, ErrCorrupt) || err != nil && !ok {
			t.Fatalf("%v", err)
		}
		os.Exit(0) // without a look at what is left open
	}
	opt := Options{Dir: t.TempDir(), MemTable: 8 << 20}
	fillAndClose(t, opt)
	for name := range calls {
		copied := filepath.Join(t.TempDir(), "db")
		if err := os.CopyFS(copied, os.DirFS(opt.Dir)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestRefused$", "-test.v")
		cmd.Env = append(os.Environ(), env+"="+name, dir+"="+copied)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == noFilters {
			t.Skipf("no filters of system calls here: %s", out)
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
