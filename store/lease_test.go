package store

import (
	"errors"
	"testing"
	"time"
)

// What a lease keeps outlives sweeps and openings, and goes when the lease has
// ended, by being told to or by time.
func TestLeaseKeepsBlocks(t *testing.T) {
	dir := t.TempDir() + "/store"
	if err := Init(dir, smallConfig()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	open := func() *Store {
		s, err := Open(dir, Options{SweepInterval: -1, Ballast: -1, MemTable: 8 << 20, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	var leases []LeaseID
	var ids []ID
	for i := range 2 {
		lease, err := s.NewLease("test", "")
		if err != nil {
			t.Fatal(err)
		}
		release := s.Hold()
		id, err := s.Put(KindData, randomBytes(uint64(i+1), 5000))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // twice is once
			if has, err := s.Keep(lease, []ID{id, {9}}); err != nil || !has[0] || has[1] {
				t.Fatalf("keep: %v, %v", has, err)
			}
		}
		release()
		leases, ids = append(leases, lease), append(ids, id)
	}
	expect := func(want ...bool) {
		t.Helper()
		if _, err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i, id := range ids {
			if has, err := s.Has(id); err != nil || has != want[i] {
				t.Errorf("block %d is there: %v, want %v (%v)", i, has, want[i], err)
			}
		}
		if r, err := s.Check(t.Context(), CheckOptions{}); err != nil || r.Count != 0 {
			t.Errorf("check: %v, %v", r.Problems, err)
		}
	}
	expect(true, true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer func() { s.Close() }()
	expect(true, true)
	if err := s.EndLease(leases[0]); err != nil {
		t.Fatal(err)
	}
	expect(false, true)
	now = now.Add(LeaseTime - time.Hour)
	if _, err := s.Keep(leases[1], nil); err != nil { // renews it
		t.Fatal(err)
	}
	now = now.Add(2 * time.Hour)
	expect(false, true)
	now = now.Add(LeaseTime)
	if _, err := s.Keep(leases[1], nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("a lease past its time: %v", err)
	}
	expect(false, false)
	if l := s.Leases(); len(l) != 0 {
		t.Errorf("leases are left: %v", l)
	}
}
