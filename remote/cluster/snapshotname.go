package cluster

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// A snapshot that an agent makes is named by the volume's epoch and a number that grows: which one
// is the newest must rest on no clock.
const (
	autoPrefix     = "cluster-"
	divergedPrefix = "diverged-"
)

// SnapshotName is what the agent of a volume's home calls the nth snapshot of an epoch.
func SnapshotName(epoch, n int64) string { return fmt.Sprintf("%s%d-%d", autoPrefix, epoch, n) }

// ParseSnapshotName is the reverse of SnapshotName; 0 and 0 for names that are not its.
func ParseSnapshotName(name string) (epoch, n int64, ok bool) {
	rest, ok := strings.CutPrefix(name, autoPrefix)
	if !ok {
		return 0, 0, false
	}
	first, second, _ := strings.Cut(rest, "-")
	epoch, err1 := strconv.ParseInt(first, 10, 64)
	n, err2 := strconv.ParseInt(second, 10, 64)
	// Only what SnapshotName writes: "+1" is a number, too, and a user's name.
	if err1 != nil || err2 != nil || epoch <= 0 || n <= 0 || SnapshotName(epoch, n) != name {
		return 0, 0, false
	}
	return epoch, n, true
}

// NewerSnapshot compares two names that ParseSnapshotName knows, as cmp.Compare does; other names
// are older than all of them.
func NewerSnapshot(a, b string) int {
	ae, an, _ := ParseSnapshotName(a)
	be, bn, _ := ParseSnapshotName(b)
	return cmp.Or(cmp.Compare(ae, be), cmp.Compare(an, bn))
}

// DivergedName is what the state of a former home is called that has written in an epoch after
// another node had taken over.
func DivergedName(epoch int64) string { return fmt.Sprintf("%s%d", divergedPrefix, epoch) }
