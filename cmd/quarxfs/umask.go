package main

import (
	"os"
	"strconv"
	"strings"
)

// currentUmask reads the umask without setting it.
func currentUmask() os.FileMode {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o077
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(v), 8, 32)
			if err == nil {
				return os.FileMode(n)
			}
		}
	}
	return 0o077
}
