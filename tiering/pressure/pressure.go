// Package pressure tells how busy this machine is, and how short of memory this process: what the
// kernel says of stalls, of the process's control groups and of the load.
package pressure

import (
	"fmt"
	"runtime"

	"github.com/shirou/gopsutil/v3/load"
	"github.com/shirou/gopsutil/v3/mem"
)

// A Gauge tells whether a machine has time to move blocks. It looks at the
// kernel's pressure stall information, that of the whole machine and that of this
// process's control group, at the group's memory limit, and where the kernel has no
// such information at the load.
type Gauge struct {
	group group
	load  func() (perCPU float64, err error)
	free  func() (share float64, err error)
}

// New returns the gauge of this machine.
func New() *Gauge { return At("/") }

// At reads the kernel's files below root instead of /.
func At(root string) *Gauge {
	return &Gauge{group: group{root}, load: loadPerCPU, free: freeMemory}
}

// Memory is how short of memory this process is.
type Memory struct {
	GroupMemory
	Stalled float64 // per cent of the last 10 s in which some task waited for memory
	Free    float64 // share of the machine's memory that can be had
}

// Memory returns how short of memory this process is; what the kernel does not tell
// counts as none.
func (g *Gauge) Memory() Memory {
	m := Memory{GroupMemory: g.group.memory(), Free: 1}
	stall, _ := g.group.stalled("memory", "some")
	m.Stalled = stall.percent
	if free, err := g.free(); err == nil {
		m.Free = free
	}
	return m
}

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
func (g *Gauge) Busy() string {
	known := false
	for _, r := range []struct {
		file, line string
		most       float64
	}{{"memory", "some", mostMemory}, {"cpu", "some", mostCPU}, {"io", "full", mostIO}} {
		stall, ok := g.group.stalled(r.file, r.line)
		// One of the files is enough: then the load, which counts waiting for the disk, is not
		// asked.
		known = known || ok
		if stall.percent > r.most {
			return fmt.Sprintf("tasks wait for %s %.0f %% of the time (%s)", r.file, stall.percent, stall.where)
		}
	}
	if m := g.Memory(); m.Used > mostUsed {
		return fmt.Sprintf("%.0f %% of the control group's memory are in use", 100*m.Used)
	} else if m.Free < leastFree {
		return fmt.Sprintf("only %.1f %% of the memory are free", 100*m.Free)
	}
	if !known {
		if l, err := g.load(); err == nil && l > mostLoad {
			return fmt.Sprintf("the load is %.1f for each CPU", l)
		}
	}
	return ""
}
