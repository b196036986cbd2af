package store

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A store that is open for reading only has all that it had, after a crash, too, and changes no
// file: neither where it could, nor where it cannot, nor with others who read.
func TestReadOnlyChangesNothing(t *testing.T) {
	x := makeSample(t, filepath.Join(fastRoot(t), "this"), 1)
	readOnly, writing := sampleOptions(), sampleOptions()
	readOnly.ReadOnly, readOnly.LockWait, writing.LockWait = true, 0, 0
	look := func(t *testing.T, what string) {
		t.Helper()
		before := tree(t, x.root)
		var both [2]*Store
		for i := range both {
			var err error
			if both[i], err = Open(x.store(), readOnly); err != nil {
				t.Fatal(what, err)
			}
		}
		x.compare(t, what, both[0], false)
		if got, err := both[0].Check(t.Context(), CheckOptions{Data: true}); err != nil || got.Count > 0 || got.Objects != int64(len(x.want)) {
			t.Errorf("%s: check: %+v, %v", what, got, err)
		}
		if _, err := both[0].Put(KindData, []byte("new")); !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: Put: %v", what, err)
		}
		for _, s := range both {
			if err := s.Close(); err != nil {
				t.Errorf("%s: close: %v", what, err)
			}
		}
		if after := tree(t, x.root); !maps.Equal(before, after) {
			t.Errorf("%s: a file has changed", what)
		}
	}
	for state, from := range map[string]string{"closed": x.closed, "crashed": x.crashed} {
		if err := x.renew(from, "", false); err != nil {
			t.Fatal(err)
		}
		// Who reads keeps out who writes, without a lock, too.
		s, err := Open(x.store(), readOnly)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(x.store(), writing); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: opened for writing as well: %v", state, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		look(t, state)
		if err := os.WriteFile(filepath.Join(x.store(), lockName), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		look(t, state+", with a lock")
		t.Run(state+" on a read-only disk", func(t *testing.T) {
			mountReadOnly(t, x.root)
			if _, err := Open(x.store(), writing); !errors.Is(err, ErrUnwritable) || !errors.Is(err, unix.EROFS) {
				t.Errorf("opened for writing: %v", err)
			}
			look(t, state)
		})
	}
	s, err := Open(x.store(), writing)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Open(x.store(), readOnly); !errors.Is(err, ErrLocked) {
		t.Errorf("opened for reading while somebody writes: %v", err)
	}
}

// mountReadOnly has the kernel refuse all writing below dir until the test ends.
func mountReadOnly(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Skip("no mounts can be made here: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}
