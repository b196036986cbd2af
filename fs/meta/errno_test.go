package meta

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"
)

func TestIsErrno(t *testing.T) {
	const no = syscall.ENOENT
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{no, true},
		{fmt.Errorf("inode 7: %w", no), true},
		{errors.Join(errors.New("also"), no), true},
		{syscall.EIO, false},
		{&fs.PathError{Op: "open", Path: "hot/1.seg", Err: no}, false},
		{fmt.Errorf("store block: %w", &fs.PathError{Op: "open", Path: "hot/1.seg", Err: no}), false},
		{&os.LinkError{Op: "rename", Old: "hot/1.open", New: "hot/1.seg", Err: no}, false},
		{os.NewSyscallError("pwritev", no), false},
	} {
		if got := IsErrno(c.err, no); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
