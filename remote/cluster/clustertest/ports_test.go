package clustertest

import "testing"

// Many ask at once, and each gets ports of its own.
func TestFreePorts(t *testing.T) {
	const asks, each = 300, 3
	given := make(map[int]bool)
	for range asks {
		first, err := FreePorts(each)
		if err != nil {
			t.Fatal(err)
		}
		for port := first; port < first+each; port++ {
			if given[port] {
				t.Errorf("port %d is given out twice", port)
			}
			given[port] = true
		}
	}
}
