package fs

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// overEach runs a test over the device, and over rings where they are switched on: a setting of the
// whole machine, which a test leaves alone.
func overEach(t *testing.T, test func(t *testing.T)) {
	for _, kind := range []Transport{Device, Ring} {
		t.Run(kind.String(), func(t *testing.T) {
			const file = "/sys/module/fuse/parameters/enable_uring"
			if b, err := os.ReadFile(file); kind == Ring && (err != nil || !strings.HasPrefix(string(b), "Y")) {
				t.Skipf("no rings: %s is %q (%v); root may write Y there", file, b, err)
			}
			t.Setenv(envTransport, kind.String())
			test(t)
		})
	}
}

// Who searches a file for holes waits for the kernel to write its pages back, and that for answers
// which may come after those of many others who do so on the same processor.
func TestManySeekOverDirtyPages(t *testing.T) {
	overEach(t, func(t *testing.T) {
		mnt, _ := mountForTest(t, t.TempDir())
		const many, rounds, size = 64, 1, 64 << 10
		var g errgroup.Group
		for i := range many {
			g.Go(func() error {
				runtime.LockOSThread() // for good: the thread stays on that processor
				var set unix.CPUSet
				set.Set(0)
				if err := unix.SchedSetaffinity(0, &set); err != nil {
					t.Log(err) // then anywhere
				}
				f, err := os.Create(filepath.Join(mnt, strconv.Itoa(i)))
				if err != nil {
					return err
				}
				defer f.Close()
				data := make([]byte, size/2)
				for j := range rounds {
					for k := range data {
						data[k] = byte(i + j + 1)
					}
					if _, err := f.WriteAt(data, int64(j)*size); err != nil {
						return err
					}
					at, err := unix.Seek(int(f.Fd()), int64(j)*size, unix.SEEK_HOLE)
					if want := int64(j)*size + size/2; err != nil || at != want {
						t.Errorf("file %d has a hole at %d (%v), not %d", i, at, err, want)
					}
				}
				return nil
			})
		}
		done := make(chan error, 1)
		go func() { done <- g.Wait() }()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(2 * time.Minute):
			t.Fatal("they wait for each other") // and the cleanup kills the server
		}
	})
}
