package also_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/tiering/also"
)

func TestIs(t *testing.T) {
	inner := &fs.PathError{Op: "open", Path: "x", Err: syscall.EIO}
	err := fmt.Errorf("outside: %w", also.Is(inner, syscall.ENOENT, io.EOF))
	if want := "outside: " + inner.Error(); err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	for _, is := range []error{inner, syscall.EIO, syscall.ENOENT, fs.ErrNotExist, io.EOF} {
		if !errors.Is(err, is) {
			t.Errorf("it is not %v", is)
		}
	}
	if as, ok := errors.AsType[*fs.PathError](err); !ok || as != inner {
		t.Error("it is not the error that it was made of")
	}
	if errors.Is(err, syscall.EACCES) {
		t.Error("it is what nobody said")
	}
}
