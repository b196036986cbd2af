package main

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// A budget shares the memory of a daemon out. docs/operations.md explains the
// shares.
type budget struct {
	total    int64 // as asked for, or 3/4 of what the cgroup allows when that is less
	cache    int64 // RAM tier
	dirty    int64 // written bytes that are not yet stored
	memTable int64 // of the database, which has two and seldom three
}

const (
	minBudget   = 64 << 20
	minMemTable = 8 << 20
	maxMemTable = 64 << 20 // a larger one only makes opening after a crash slower
)

func newBudget(asked, cgroup int64) budget {
	total := asked
	if cgroup > 0 {
		total = min(total, cgroup/4*3)
	}
	total = max(total, minBudget)
	return budget{total: total, cache: total / 4, dirty: total / 8, memTable: min(max(total/16, minMemTable), maxMemTable)}
}

// apply tells the Go runtime. The collector runs earlier than by default, so
// that garbage takes half of what is alive and not as much again.
func (b budget) apply() {
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(b.total)
}

// cgroupLimit returns the least memory limit of the control groups that this
// process is in; 0 when there is none.
func cgroupLimit(root string) int64 {
	b, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	least := int64(0)
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		f := strings.SplitN(s.Text(), ":", 3)
		if len(f) != 3 {
			continue
		}
		mount, name := "sys/fs/cgroup", "memory.max"
		if f[1] == "memory" {
			mount, name = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if f[1] != "" {
			continue
		}
		for dir := f[2]; ; dir = filepath.Dir(dir) {
			if n := readLimit(filepath.Join(root, mount, dir, name)); n > 0 && (least == 0 || n < least) {
				least = n
			}
			if dir == "/" || dir == "." {
				break
			}
		}
	}
	return least
}

// readLimit returns 0 for a file that is missing or sets no limit; version 1
// writes a number near 2^63 for none.
func readLimit(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n >= 1<<60 {
		return 0
	}
	return n
}
