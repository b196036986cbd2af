package keyfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(file, []byte("key\n"), 0o640), os.Chmod(file, 0o640), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, want string
		mode       fs.FileMode
		err        error
	}{
		{path: file, want: "key\n", mode: 0o640},
		{path: pipe, mode: 0o600}, // nobody writes
		{path: "/dev/zero", err: ErrTooLarge},
		{path: dir, err: syscall.EISDIR},
		{path: file + "-not", err: fs.ErrNotExist},
	} {
		data, mode, err := Read(c.path)
		switch {
		case !errors.Is(err, c.err):
			t.Errorf("%s: %v", c.path, err)
		case c.err == nil && (string(data) != c.want || mode.Perm() != c.mode):
			t.Errorf("%s: %q, %v", c.path, data, mode)
		}
	}
}
