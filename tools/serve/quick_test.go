package serve

import "testing"

// TestQuickUnmount: go-fuse's loopback opens a file in its own mount just after it
// has mounted it, and neither an unmount nor a kill may stumble over that.
func TestQuickUnmount(t *testing.T) {
	p, err := NewLoopback("loopback", t.TempDir(), loopbackBin(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	for i := range 40 {
		if err := p.Mount(t.Context()); err != nil {
			t.Skip("cannot mount here:", err)
		}
		leave := p.Unmount
		if i%2 == 1 {
			leave = p.Kill
		}
		if err := leave(t.Context()); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}
