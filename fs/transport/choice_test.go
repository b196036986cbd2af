package transport

import (
	"slices"
	"testing"
)

func TestTrusted(t *testing.T) {
	for name, want := range map[string]bool{
		"6.14.0": false, "6.17.99": false, "6.18.38": false, "6.18.39": true, "6.18.44-fc-v782": true, "6.18.100+": true,
		"6.19.20": false, "7.0.9": false, "7.1.3": false, "7.1.4": true, "7.2.0-rc1": false, "7.2.0": true, "7.2": true, "7.3.1": true, "8.0": true,
		"": false, "x": false, "6": false, "7.x": false,
	} {
		if got := parseRelease(name).trusted(); got != want {
			t.Errorf("%q is trusted: %v", name, got)
		}
	}
}

func TestParseList(t *testing.T) {
	for list, want := range map[string][]int{"0": {0}, "0-3": {0, 1, 2, 3}, "0,2-3,7": {0, 2, 3, 7}, "": nil, "3-1": nil, "a": nil, "0-": nil} {
		got, err := parseList(list)
		if (err != nil) != (want == nil) || !slices.Equal(got, want) {
			t.Errorf("%q is %v, %v", list, got, err)
		}
	}
}
