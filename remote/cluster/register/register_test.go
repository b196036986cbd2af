package register_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/register"
	"github.com/quarxtor/quarxfs/remote/cluster/register/registertest"
)

func TestFake(t *testing.T) {
	f := registertest.NewFake()
	registertest.Test(t, func(*testing.T) register.Register { return f.Client() })
}

// A holder that is not heard of loses its lease and the keys under it, and learns it.
func TestFakeLeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := registertest.NewFake()
		r := f.Client()
		lease, err := r.Lease(t.Context(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := lease.Put(t.Context(), "alive", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		f.SetDown(true)
		if _, err := r.Get(t.Context(), "alive"); !errors.Is(err, register.ErrUnavailable) {
			t.Errorf("get without a quorum: %v", err)
		}
		time.Sleep(15 * time.Second)
		<-lease.Lost()
		f.SetDown(false)
		if _, err := r.Get(t.Context(), "alive"); !errors.Is(err, register.ErrNotFound) {
			t.Errorf("after the lease: %v", err)
		}
	})
}
