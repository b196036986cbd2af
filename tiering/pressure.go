package tiering

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/shirou/gopsutil/v3/load"
	"github.com/shirou/gopsutil/v3/mem"
)

// Pressure tells whether a machine has time to move blocks. It looks at the
// kernel's pressure stall information, that of the whole machine and that of this
// process's control group, at the group's memory limit, and where the kernel has no
// such information at the load.
type Pressure struct {
	root string // "/", or a test's
	load func() (perCPU float64, err error)
	free func() (share float64, err error)
}

// NewPressure returns the pressure on this machine.
func NewPressure() *Pressure { return &Pressure{root: "/", load: loadPerCPU, free: freeMemory} }

func loadPerCPU() (float64, error) {
	avg, err := load.Avg()
	if err != nil {
		return 0, err
	}
	return avg.Load1 / float64(runtime.NumCPU()), nil
}

func freeMemory() (float64, error) {
	m, err := mem.VirtualMemory()
	if err != nil || m.Total == 0 {
		return 1, err
	}
	return float64(m.Available) / float64(m.Total), nil
}

// From these on the machine is busy: per cent of the last 10 s in which some task
// waited for it, or in which all did. The disk's is high because moving itself
// makes tasks wait for it.
const (
	mostCPU    = 40.0
	mostIO     = 60.0
	mostMemory = 10.0
	mostLoad   = 1.5  // tasks for each CPU
	leastFree  = 0.03 // of the machine's memory
	mostUsed   = 0.95 // of the control group's, without its page cache
)

// Busy says why blocks should not be moved now; "": they may.
func (p *Pressure) Busy() string {
	group := p.group()
	told := false
	for _, r := range []struct {
		file, line string
		most       float64
	}{{"memory", "some", mostMemory}, {"cpu", "some", mostCPU}, {"io", "full", mostIO}} {
		for _, path := range []string{filepath.Join("proc/pressure", r.file), filepath.Join(group, r.file+".pressure")} {
			v, ok := p.stalled(path, r.line)
			told = told || ok
			if v > r.most {
				return fmt.Sprintf("tasks wait for %s %.0f %% of the time (%s)", r.file, v, path)
			}
		}
	}
	if share, ok := p.groupMemory(group); ok && share > mostUsed {
		return fmt.Sprintf("%.0f %% of the control group's memory are in use", 100*share)
	}
	if share, err := p.free(); err == nil && share < leastFree {
		return fmt.Sprintf("only %.1f %% of the memory are free", 100*share)
	}
	if !told {
		if l, err := p.load(); err == nil && l > mostLoad {
			return fmt.Sprintf("the load is %.1f for each CPU", l)
		}
	}
	return ""
}

// stalled reads avg10 of a line of a pressure file.
func (p *Pressure) stalled(path, line string) (percent float64, ok bool) {
	b, err := os.ReadFile(filepath.Join(p.root, path))
	if err != nil {
		return 0, false
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 2 || f[0] != line {
			continue
		}
		v, found := strings.CutPrefix(f[1], "avg10=")
		percent, err := strconv.ParseFloat(v, 64)
		return percent, found && err == nil
	}
	return 0, false
}

// group returns the directory of this process's control group of version 2,
// relative to the root.
func (p *Pressure) group() string {
	const mount = "sys/fs/cgroup"
	b, err := os.ReadFile(filepath.Join(p.root, "proc/self/cgroup"))
	if err != nil {
		return mount
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Join(mount, filepath.Clean("/"+name))
		}
	}
	return mount
}

// groupMemory returns the share of the control group's limit that cannot be given
// back.
func (p *Pressure) groupMemory(group string) (share float64, ok bool) {
	limit, ok1 := p.number(filepath.Join(group, "memory.max"))
	used, ok2 := p.number(filepath.Join(group, "memory.current"))
	if !ok1 || !ok2 || limit <= 0 {
		return 0, false
	}
	b, err := os.ReadFile(filepath.Join(p.root, group, "memory.stat"))
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if v, found := strings.CutPrefix(line, "file "); found {
				cached, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
				used -= cached
			}
		}
	}
	return used / limit, true
}

func (p *Pressure) number(path string) (float64, bool) {
	b, err := os.ReadFile(filepath.Join(p.root, path))
	if err != nil {
		return 0, false
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64) // "max" is no number
	return v, err == nil
}
