package owner_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/quarxtor/quarxfs/store/handle"
	"github.com/quarxtor/quarxfs/store/owner"
)

const somebody = 4242 // nobody's number, and so without a line in passwd

// TestMain runs inside in a process of its own: Enter changes the whole process.
func TestMain(m *testing.M) {
	dir := os.Getenv("OWNER_TEST_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	if err := inside(dir, os.Getenv("OWNER_TEST_FILE")); err != nil {
		fmt.Println(err)
		if errors.Is(err, owner.ErrUnsafe) {
			os.Exit(6)
		}
		os.Exit(1)
	}
}

// inside makes files as others would: from many threads in the directory, one as the caller, and
// one at the end.
func inside(dir, callers string) error {
	d, err := handle.Open(dir)
	if err != nil {
		return err
	}
	leave, warning, err := owner.Enter(d)
	if err != nil {
		return err
	}
	if warning != "" {
		fmt.Println(warning)
	}
	var all sync.WaitGroup
	errs := make(chan error, 64)
	for i := range 32 {
		all.Go(func() {
			name := filepath.Join("db", fmt.Sprint(i))
			errs <- os.WriteFile(d.Join(name), nil, 0o600)
			if i%4 == 0 {
				errs <- owner.AsCaller(func() error { return os.WriteFile(callers+fmt.Sprint(i), nil, 0o600) })
			}
		})
		if i == 16 {
			all.Wait()
		}
	}
	all.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return errors.Join(err, leave(), os.WriteFile(callers, nil, 0o600))
}

// enter runs inside in a process of its own and returns what it said and its exit code.
func enter(t *testing.T, dir, callers string) (says string, code int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "OWNER_TEST_DIR="+dir, "OWNER_TEST_FILE="+callers)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func ownerOf(t *testing.T, path string) uint32 {
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

// newStore returns a directory that looks like a store of a user, below one that only
// the caller may enter.
func newStore(t *testing.T, uid int) string {
	dir := filepath.Join(t.TempDir(), "s")
	err := errors.Join(os.MkdirAll(filepath.Join(dir, "db"), 0o700), os.Mkdir(filepath.Join(dir, "hot"), 0o700),
		os.WriteFile(filepath.Join(dir, "db", "0"), []byte("before"), 0o600))
	if err == nil && uid != os.Geteuid() {
		// Only the directory, as if root's commands had made the rest.
		err = os.Chown(dir, uid, uid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func needRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root acts as somebody else")
	}
}

func TestEnterOwn(t *testing.T) {
	dir, callers := newStore(t, os.Geteuid()), filepath.Join(t.TempDir(), "f")
	elsewhere := filepath.Join(t.TempDir(), "e")
	if err := os.Symlink(elsewhere, filepath.Join(dir, "quarxfs.log")); err != nil {
		t.Fatal(err)
	}
	if says, code := enter(t, dir, callers); code != 0 || says != "" {
		t.Errorf("a link in the caller's own store: %d, %s", code, says)
	}
}

func TestEnterForeign(t *testing.T) {
	needRoot(t)
	dir, callers := newStore(t, somebody), filepath.Join(t.TempDir(), "f")
	shared := filepath.Join(filepath.Dir(callers), "shared") // root's own, linked into the store
	err := errors.Join(os.WriteFile(shared, nil, 0o600), os.Link(shared, filepath.Join(dir, "db", "link")),
		os.WriteFile(filepath.Join(dir, "notes"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if says, code := enter(t, dir, callers); code != 0 || says != "" {
		t.Fatalf("%d: %s", code, says)
	}
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		want := uint32(somebody)
		if name := filepath.Base(path); name == "link" || name == "notes" {
			want = 0
		}
		if got := ownerOf(t, path); got != want {
			t.Errorf("%s is user %d's", path, got)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"", "0", "28"} {
		if got := ownerOf(t, callers+n); got != 0 {
			t.Errorf("the caller's file %s is user %d's", n, got)
		}
	}
}

// No file of a store is a way out of it.
func TestEnterLinks(t *testing.T) {
	needRoot(t)
	dir, callers := newStore(t, somebody), filepath.Join(t.TempDir(), "f")
	elsewhere := filepath.Join(t.TempDir(), "e")
	for _, name := range []string{
		"db", "hot", "spool", "lock", "control.sock", "quarxfs.json", "quarxfs.json.tmp", "quarxfs.log", "quarxfs.log.1",
		"settings.json", "settings.json.tmp", "tiers.json", "tokens.json.tmp", "heat", "heat.tmp", "listen.pem",
		"db/MANIFEST", "db/LOG.0", "db/rows.0", "db/BALLAST", "hot/0000000000000001.open", "db.rebuild",
	} {
		at := filepath.Join(dir, name)
		if name == "db" || name == "hot" {
			if err := os.Rename(at, at+".away"); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(elsewhere, at); err != nil {
			t.Fatal(err)
		}
		says, code := enter(t, dir, callers)
		if code != 6 || !strings.Contains(says, at) {
			t.Errorf("%s: %d, %s", name, code, says)
		}
		if err := os.Remove(at); err != nil {
			t.Fatal(err)
		}
		if name == "db" || name == "hot" {
			if err := os.Rename(at+".away", at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := os.Lstat(elsewhere); err == nil {
		t.Error("a file was made where a link leads")
	}
	if says, code := enter(t, dir, callers); code != 0 {
		t.Errorf("without links: %d, %s", code, says)
	}
}

// Who is not root cannot act as another, and is told who can write in the store.
func TestEnterOpen(t *testing.T) {
	dir, callers := newStore(t, os.Geteuid()), filepath.Join(t.TempDir(), "f")
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	want := 0
	if os.Geteuid() == 0 {
		want = 6
	}
	if says, code := enter(t, dir, callers); code != want || !strings.Contains(says, "chmod go-w") {
		t.Errorf("others can write: %d, %s", code, says)
	}
}
