package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A holder keeps a filesystem from ending when one of its mounts is unmounted: another mount of it,
// in this mount namespace or in another one, or what is mounted on it.
type holder struct {
	mounted
	pid  string // a process that sees the mount; "": this one does
	upon bool   // it is mounted on the mount in question
}

func (h holder) String() string {
	switch {
	case h.pid != "":
		return fmt.Sprintf("%s in the mount namespace of %s", printable(h.dir), processName(h.pid))
	case h.upon:
		return fmt.Sprintf("%s is mounted on it at %s", h.fsType, printable(h.dir))
	case h.root != "/":
		return fmt.Sprintf("%s, a bind mount of %s in it", printable(h.dir), printable(h.root))
	}
	return printable(h.dir)
}

// release is the command that takes the holder away.
func (h holder) release() string {
	if h.pid != "" {
		return fmt.Sprintf("nsenter -t %s -m umount %s", h.pid, printable(h.dir))
	}
	return "umount " + printable(h.dir)
}

// holdersOf returns what keeps a mount's filesystem from ending when the mount is unmounted.
func holdersOf(m mounted) ([]holder, error) {
	tables, err := allTables()
	if err != nil {
		return nil, err
	}
	return findHolders(tables, m), nil
}

// A namespace is one of the mount namespaces on this machine, as a process in it sees it.
type namespace struct {
	pid   string // "": that of this process, which comes first
	table []mounted
}

// allTables returns the mounts in all namespaces that some process in /proc is in, of those that
// this one may look at.
func allTables() ([]namespace, error) {
	own, err := mountTable()
	if err != nil {
		return nil, err
	}
	all := []namespace{{table: own}}
	link, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return all, nil // a kernel without them
	}
	seen := map[string]bool{link: true}
	for _, pid := range processes() {
		link, err := os.Readlink("/proc/" + pid + "/ns/mnt")
		if err != nil || seen[link] {
			continue
		}
		if table, err := mountTableOf(pid); err == nil {
			seen[link] = true
			all = append(all, namespace{pid, table})
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
func findHolders(all []namespace, m mounted) []holder {
	goes := alongWith(all, m)
	var found []holder
	for _, ns := range all {
		for _, o := range ns.table {
			switch {
			case ns.pid == "" && o.id == m.id:
			case ns.pid == "" && o.parent == m.id:
				found = append(found, holder{mounted: o, upon: true})
			case o.device == m.device && !goes(ns.table, o):
				found = append(found, holder{mounted: o, pid: ns.pid})
			}
		}
	}
	return found
}

// alongWith tells which mounts are unmounted along with m: those at the same place on mounts that
// m's parent propagates to, as mount_namespaces(7) has it.
func alongWith(all []namespace, m mounted) func(table []mounted, o mounted) bool {
	parent, ok := parentOf(all[0].table, m)
	if !ok || parent.shared == 0 {
		return func([]mounted, mounted) bool { return false }
	}
	groups := map[int]bool{parent.shared: true}
	for n := 0; n != len(groups); { // peers of followers are followed in turn
		n = len(groups)
		for _, ns := range all {
			for _, x := range ns.table {
				if x.shared != 0 && groups[x.master] {
					groups[x.shared] = true
				}
			}
		}
	}
	return func(table []mounted, o mounted) bool {
		p, ok := parentOf(table, o)
		return ok && p.device == parent.device && (groups[p.shared] || groups[p.master]) && spotOn(p, o) == spotOn(parent, m)
	}
}

func parentOf(table []mounted, m mounted) (mounted, bool) {
	i := slices.IndexFunc(table, func(o mounted) bool { return o.id == m.parent && o.id != m.id })
	if i < 0 {
		return mounted{}, false
	}
	return table[i], true
}

// spotOn returns where m is in the filesystem that its parent mounts.
func spotOn(parent, m mounted) string {
	return filepath.Join(parent.root, strings.TrimPrefix(m.dir, parent.dir))
}

// maxUsers bounds how many processes an error names.
const maxUsers = 5

// usersOf returns the processes that stand in a filesystem, have a file of it open, or run one.
func usersOf(device string) []string {
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
	if more := len(list) - maxUsers; more > 0 {
		list = append(list[:maxUsers], fmt.Sprintf("%d more", more))
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

// deviceOf returns the filesystem of what a path leads to, in mountinfo's form; a daemon is not
// asked.
func deviceOf(path string) string {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, 0, &st) != nil {
		return ""
	}
	return strconv.Itoa(int(st.Dev_major)) + ":" + strconv.Itoa(int(st.Dev_minor))
}

// processName is a process as errors name it.
func processName(pid string) string {
	name, _ := os.ReadFile("/proc/" + pid + "/comm")
	return fmt.Sprintf("process %s (%s)", pid, printable(strings.TrimSpace(string(name))))
}

// lives returns whether the kernel still has a mounted filesystem, whoever holds it; known is
// false where /sys does not say.
func lives(device string) (alive, known bool) {
	if _, err := os.Stat("/sys/class/bdi"); err != nil {
		return false, false
	}
	_, err := os.Stat("/sys/class/bdi/" + device)
	return err == nil, true
}
