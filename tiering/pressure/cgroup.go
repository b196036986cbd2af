package pressure

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A group is where the control groups of this process, of version 1 or 2, are told of: below root,
// which is "/" but in tests. Every method reads anew, since limits change and processes are moved.
type group struct{ root string }

// GroupMemory is what limits a process's memory.
type GroupMemory struct {
	// Limit is the least limit of the group and those around it, in bytes; 0: none.
	Limit int64
	// Used is how much of its limit the fullest of these groups has in use, 0 to 1, page
	// cache not counted; 0 without a limit.
	Used float64
}

// version 1 and 2 have other names for the same. A hard limit and one from which on the kernel
// slows a group down both count.
type names struct {
	mount, usage, cached string
	limits               []string
}

var (
	names1 = names{"sys/fs/cgroup/memory", "memory.usage_in_bytes", "total_cache", []string{"memory.limit_in_bytes"}}
	names2 = names{"sys/fs/cgroup", "memory.current", "file", []string{"memory.max", "memory.high"}}
)

// memory returns the limits as they are now.
func (g group) memory() (m GroupMemory) {
	g.each(func(n names, dir string) {
		for {
			m = g.tighter(m, n, filepath.Join(n.mount, dir))
			if dir == "/" {
				return
			}
			dir = filepath.Dir(dir)
		}
	})
	return m
}

// each calls fn for the groups that may limit memory.
func (g group) each(fn func(n names, dir string)) {
	b, err := os.ReadFile(filepath.Join(g.root, "proc/self/cgroup"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) != 3:
		case f[1] == "":
			fn(names2, filepath.Clean("/"+f[2]))
		case f[1] == "memory":
			fn(names1, filepath.Clean("/"+f[2]))
		}
	}
}

// tighter returns m with one group's limits counted in.
func (g group) tighter(m GroupMemory, n names, dir string) GroupMemory {
	limit := int64(0)
	for _, name := range n.limits {
		if v, ok := g.number(filepath.Join(dir, name)); ok && (limit == 0 || v < limit) {
			limit = v
		}
	}
	if limit == 0 {
		return m
	}
	if m.Limit == 0 || limit < m.Limit {
		m.Limit = limit
	}
	if used, ok := g.number(filepath.Join(dir, n.usage)); ok {
		used -= g.stat(dir, n.cached)
		m.Used = max(m.Used, float64(used)/float64(limit))
	}
	return m
}

// number reads a file with a number. ok is false for one that is missing or sets no limit;
// version 1 writes one near 2^63 for none, version 2 the word max.
func (g group) number(path string) (n int64, ok bool) {
	b, err := os.ReadFile(filepath.Join(g.root, path))
	if err != nil {
		return 0, false
	}
	n, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil && n > 0 && n < 1<<60
}

// stat returns a line of a group's memory.stat, 0 if there is none.
func (g group) stat(dir, name string) int64 {
	b, err := os.ReadFile(filepath.Join(g.root, dir, "memory.stat"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return n
		}
	}
	return 0
}

// A stall says how much of the last 10 s tasks waited for a resource, in per cent.
type stall struct {
	percent float64
	where   string // the file that says so
}

// stalled returns the worse stall of the machine and the group: of some tasks, or with
// line "full" of all. resource is cpu, io or memory. known is false where the kernel
// does not say.
func (g group) stalled(resource, line string) (worst stall, known bool) {
	paths := []string{filepath.Join("proc/pressure", resource)}
	own := false
	g.each(func(n names, dir string) {
		if n.mount == names2.mount {
			paths, own = append(paths, filepath.Join(n.mount, dir, resource+".pressure")), true
		}
	})
	// Outside of any group the root's file is the nearest.
	if !own {
		paths = append(paths, filepath.Join(names2.mount, resource+".pressure"))
	}
	for _, path := range paths {
		if v, ok := g.avg10(path, line); ok {
			if !known || v > worst.percent {
				worst = stall{v, path}
			}
			known = true
		}
	}
	return worst, known
}

func (g group) avg10(path, line string) (percent float64, ok bool) {
	b, err := os.ReadFile(filepath.Join(g.root, path))
	if err != nil {
		return 0, false
	}
	for text := range strings.Lines(string(b)) {
		f := strings.Fields(text)
		if len(f) < 2 || f[0] != line {
			continue
		}
		v, found := strings.CutPrefix(f[1], "avg10=")
		percent, err := strconv.ParseFloat(v, 64)
		return percent, found && err == nil
	}
	return 0, false
}
