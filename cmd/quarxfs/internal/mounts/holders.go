package mounts

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/quarxtor/quarxfs/graph/export"
)

// A Holder keeps a filesystem from ending when one of its mounts is unmounted: another mount of it,
// in this mount namespace or in another one, or what is mounted on it.
type Holder struct {
	Mount
	PID  string // a process that sees the mount; "": this one does
	Upon bool   // it is mounted on the mount in question
}

func (h Holder) String() string {
	switch {
	case h.PID != "":
		return fmt.Sprintf("%s in the mount namespace of %s", export.Printable(h.Dir), processName(h.PID))
	case h.Upon:
		return fmt.Sprintf("%s is mounted on it at %s", h.FSType, export.Printable(h.Dir))
	case h.Root != "/":
		return fmt.Sprintf("%s, a bind mount of %s in it", export.Printable(h.Dir), export.Printable(h.Root))
	}
	return export.Printable(h.Dir)
}

// Release is the command that takes the holder away.
func (h Holder) Release() string {
	if h.PID != "" {
		return fmt.Sprintf("nsenter -t %s -m umount %s", h.PID, export.Printable(h.Dir))
	}
	return "umount " + export.Printable(h.Dir)
}

// HoldersOf returns what keeps a mount's filesystem from ending when the mount is unmounted.
func HoldersOf(m Mount) ([]Holder, error) {
	tables, err := Namespaces()
	if err != nil {
		return nil, err
	}
	return findHolders(tables, m), nil
}

// A Namespace is one of the mount namespaces on this machine, as a process in it sees it.
type Namespace struct {
	PID   string // "": that of this process, which comes first
	Table []Mount
}

// Namespaces returns the mounts in all namespaces that some process in /proc is in, of those that
// this one may look at.
func Namespaces() ([]Namespace, error) {
	own, err := Table()
	if err != nil {
		return nil, err
	}
	all := []Namespace{{Table: own}}
	link, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return all, nil // a kernel without them
	}
	seen := map[string]bool{link: true}
	for _, pid := range processes() {
		link, err := os.Readlink("/proc/" + pid + "/ns/mnt")
		// One process speaks for a namespace. Others' processes may not be looked at: what they
		// hold is not seen.
		if err != nil || seen[link] {
			continue
		}
		if table, err := TableOf(pid); err == nil {
			seen[link] = true
			all = append(all, Namespace{pid, table})
		}
	}
	return all, nil
}

func processes() []string {
	names, _ := filepath.Glob("/proc/[0-9]*")
	for i, n := range names {
		names[i] = filepath.Base(n)
	}
	return names
}

// findHolders does so with the tables of all namespaces, of which m is in the first.
func findHolders(all []Namespace, m Mount) []Holder {
	// What the kernel unmounts along with m is not in the way.
	goes := alongWith(all, m)
	var found []Holder
	for _, ns := range all {
		for _, o := range ns.Table {
			switch {
			case ns.PID == "" && o.ID == m.ID:
			case ns.PID == "" && o.Parent == m.ID:
				found = append(found, Holder{Mount: o, Upon: true})
			case o.Device == m.Device && !goes(ns.Table, o):
				found = append(found, Holder{Mount: o, PID: ns.PID})
			}
		}
	}
	return found
}

// alongWith tells which mounts are unmounted along with m: those at the same place on mounts that
// m's parent propagates to, as mount_namespaces(7) has it.
func alongWith(all []Namespace, m Mount) func(table []Mount, o Mount) bool {
	parent, ok := parentOf(all[0].Table, m)
	if !ok || parent.Shared == 0 {
		return func([]Mount, Mount) bool { return false }
	}
	groups := map[int]bool{parent.Shared: true}
	for n := 0; n != len(groups); { // peers of followers are followed in turn
		n = len(groups)
		for _, ns := range all {
			for _, x := range ns.Table {
				if x.Shared != 0 && groups[x.Master] {
					groups[x.Shared] = true
				}
			}
		}
	}
	// At the same place of the same parent filesystem, and in a group that is told.
	return func(table []Mount, o Mount) bool {
		p, ok := parentOf(table, o)
		return ok && p.Device == parent.Device && (groups[p.Shared] || groups[p.Master]) && locationOn(p, o) == locationOn(parent, m)
	}
}

func parentOf(table []Mount, m Mount) (Mount, bool) {
	i := slices.IndexFunc(table, func(o Mount) bool { return o.ID == m.Parent && o.ID != m.ID })
	if i < 0 {
		return Mount{}, false
	}
	return table[i], true
}

// locationOn returns where m is in the filesystem that its parent mounts.
func locationOn(parent, m Mount) string {
	return filepath.Join(parent.Root, strings.TrimPrefix(m.Dir, parent.Dir))
}

// MaxUsers bounds how many processes an error names.
const MaxUsers = 5

// UsersOf returns the processes that stand in a filesystem, have a file of it open, or run one.
func UsersOf(device string) []string {
	users := make(map[string]bool)
	for _, pid := range processes() {
		if pid == strconv.Itoa(os.Getpid()) {
			continue // with what the shell has left open for it
		}
		for _, at := range append([]string{"cwd", "root", "exe"}, openFiles(pid)...) {
			if deviceOf(filepath.Join("/proc", pid, at)) == device {
				users[processName(pid)] = true
				break
			}
		}
	}
	list := slices.Sorted(maps.Keys(users))
	if more := len(list) - MaxUsers; more > 0 {
		list = append(list[:MaxUsers], fmt.Sprintf("%d more", more))
	}
	return list
}

func openFiles(pid string) []string {
	entries, _ := os.ReadDir("/proc/" + pid + "/fd")
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = "fd/" + e.Name()
	}
	return names
}

// deviceOf returns the filesystem of what a path leads to; "": that cannot be seen.
func deviceOf(path string) string {
	k, err := KeyOf(path)
	if err != nil {
		return ""
	}
	return k.Device
}

// processName is a process as errors name it.
func processName(pid string) string {
	name, _ := os.ReadFile("/proc/" + pid + "/comm")
	return fmt.Sprintf("process %s (%s)", pid, export.Printable(strings.TrimSpace(string(name))))
}

// Alive returns whether the kernel still has a mounted filesystem, whoever holds it; known is
// false where /sys does not say.
func Alive(device string) (alive, known bool) {
	if _, err := os.Stat("/sys/class/bdi"); err != nil {
		return false, false
	}
	_, err := os.Stat("/sys/class/bdi/" + device)
	return err == nil, true
}

// On returns what is mounted on a filesystem at or below a path of it, in any namespace and through
// any of its mounts.
func On(device, where string) (on []Holder, err error) {
	all, err := Namespaces()
	if err != nil {
		return nil, err
	}
	for _, ns := range all {
		for _, m := range ns.Table {
			parent, ok := parentOf(ns.Table, m)
			if ok && parent.Device == device && Within(locationOn(parent, m), where) {
				on = append(on, Holder{Mount: m, PID: ns.PID, Upon: true})
			}
		}
	}
	return on, nil
}
