package main

import "regexp"

// documented are the differences from ext4 that docs/posix.md describes.
var documented = []struct{ labels, why string }{}

func documentation(label string) (why string, ok bool) {
	for _, d := range documented {
		if regexp.MustCompile(d.labels).MatchString(label) {
			return d.why, true
		}
	}
	return "", false
}
