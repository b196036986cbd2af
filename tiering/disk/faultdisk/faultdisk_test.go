package faultdisk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
)

// What is synced is in every crash image; what is not, in some.
func TestCrashKeepsWhatIsSynced(t *testing.T) {
	d := New()
	f, err := d.Create("/d/a")
	if err != nil {
		t.Fatal(err)
	}
	synced := bytes.Repeat([]byte("s"), 2000)
	f.WriteAt(synced, 0)
	f.Datasync()
	d.SyncDir("/d")
	f.WriteAt(bytes.Repeat([]byte("n"), 3000), 1000)
	if _, err := d.Create("/d/b"); err != nil {
		t.Fatal(err)
	}
	var lost, kept, torn, named, unnamed int
	for seed := range uint64(200) {
		image := d.Crash(rand.New(rand.NewPCG(seed, 1)))
		g, err := image.Open("/d/a")
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4000)
		n, _ := g.ReadAt(got, 0)
		if n < 2000 || !bytes.Equal(got[:1000], synced[:1000]) {
			t.Fatalf("seed %d: synced bytes are gone", seed)
		}
		switch new := bytes.Count(got[:n], []byte("n")); {
		case new == 0:
			lost++
		case new == 3000:
			kept++
		default:
			torn++
		}
		if _, err := image.Open("/d/b"); err == nil {
			named++
		} else {
			unnamed++
		}
	}
	if lost == 0 || kept == 0 || torn == 0 || named == 0 || unnamed == 0 {
		t.Errorf("lost %d, kept %d, torn %d, named %d, unnamed %d", lost, kept, torn, named, unnamed)
	}
}

func TestFailNth(t *testing.T) {
	d := New()
	f, err := d.Create("/a")
	if err != nil {
		t.Fatal(err)
	}
	fail, fired := FailNth(1, syscall.ENOSPC, func(op Op) bool { return op.Name == "write" })
	d.Fail(fail)
	for i, want := range []error{nil, syscall.ENOSPC, nil} {
		if fired() != (i == 2) {
			t.Errorf("write %d: fired is %t", i, fired())
		}
		if err := f.WritePairAt([]byte("ab"), []byte("cd"), 0); !errors.Is(err, want) {
			t.Errorf("write %d: %v", i, err)
		}
	}
	if d.Ops() != 4 {
		t.Errorf("%d operations", d.Ops())
	}
}
