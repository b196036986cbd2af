package db

import "testing"

// TestKickIsNoReason: a kick that is left from before a compaction makes no other one.
func TestKickIsNoReason(t *testing.T) {
	d := filled(t, t.TempDir())
	defer d.Close()
	b := d.inUse()
	for range 3 { // when the third is taken, the first has been dealt with
		d.compactor.kick <- struct{}{}
	}
	if d.inUse() != b {
		t.Error("it compacted a database that was not crowded")
	}
}
