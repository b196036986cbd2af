package main

import "regexp"

// documented are the differences from ext4 that docs/posix.md describes, by the
// heading there.
var documented = []struct {
	labels *regexp.Regexp
	why    string
}{
	{regexp.MustCompile(`^priv/(write|append|write-sync|write-direct|open-trunc|truncate|truncate-same|ftruncate|` +
		`fallocate|fallocate-keep|punch|zero|copy-range): other-6767 mode`), "Sgid without group execution"},
	{regexp.MustCompile(`^xattr/limits: value of 65536`), "Larger limits"},
	{regexp.MustCompile(`^sparse/limits: (truncate|size|write) (17592186044416|1152921504606846976|9223372036854771711|9223372036854775807)$`), "Larger limits"},
	{regexp.MustCompile(`^copy/errors: (far|too far)`), "Larger limits"},
	{regexp.MustCompile(`^times/range: get (-2147483648|-2147483649|15032385535|15032385536|1099511627776|-1099511627776)`), "Larger limits"},
	{regexp.MustCompile(`^data/direct: misaligned`), "Larger limits"},
	{regexp.MustCompile(`^rename/removed: tmpfile`), "Other details"},
	{regexp.MustCompile(`^times/operations: (truncate to the same|setxattr again) f`), "Other details"},
	{regexp.MustCompile(`^special/times: write p`), "Other details"},
	{regexp.MustCompile(`^data/sync-flags: RWF_NOWAIT`), "What FUSE does not pass on"},
	{regexp.MustCompile(`^sparse/fallocate-modes: `), "What FUSE does not pass on"},
	{regexp.MustCompile(`^copy/clone: GETFLAGS`), "What FUSE does not pass on"},
	{regexp.MustCompile(`^times/atime-cached: read [fl]$`), "Access times of what the kernel has cached"},
	{regexp.MustCompile(`^sparse/blocks: (written|synced)`), "Block counts of open files"},
}

func documentation(label string) (why string, ok bool) {
	for _, d := range documented {
		if d.labels.MatchString(label) {
			return d.why, true
		}
	}
	return "", false
}
