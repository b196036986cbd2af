package tiering

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCloseReleasesFiles(t *testing.T) {
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(fds)
	}
	before := count()
	s, err := Open(Options{HotDir: t.TempDir(), SegmentSize: 16 << 10, OpenFiles: 5, CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	var locs []Location
	for i := range 100 {
		locs = append(locs, mustAppend(t, s, Record{Kind: 1, ID: [32]byte{byte(i)}, RawLen: 4000, Payload: content(uint64(i), 4000)}))
	}
	for _, loc := range locs[:90] {
		waitSealed(t, s, loc.Segment)
	}
	for _, loc := range locs {
		if _, _, err := s.Read(loc); err != nil {
			t.Fatal(err)
		}
	}
	// The limit, the active and the next segment, and what is being sealed.
	if n := count() - before; n > 5+2+3 {
		t.Errorf("%d files open", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != before {
		t.Errorf("%d files open after Close, %d before", n, before)
	}
}
