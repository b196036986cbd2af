package main

import "testing"

func TestAmount(t *testing.T) {
	for _, tc := range []struct {
		n         int64
		one, want string
	}{
		{0, "block", "0 blocks"}, {1, "block", "1 block"}, {1234, "pinned block", "1,234 pinned blocks"},
		{1, "directory", "1 directory"}, {2, "directory", "2 directories"}, {2, "vertex", "2 vertices"},
	} {
		if got := amount(tc.n, tc.one); got != tc.want {
			t.Errorf("%d %s: %s, want %s", tc.n, tc.one, got, tc.want)
		}
	}
}
