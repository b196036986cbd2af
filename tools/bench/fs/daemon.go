package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/quarxtor/quarxfs/tools/serve"
)

// cpuTicks is USER_HZ, the unit of the times in /proc/PID/stat, 100 on every
// architecture that Go runs on under Linux.
const cpuTicks = 100

// cpuSeconds is what a process has used, in user and kernel mode.
func cpuSeconds(pid int) (float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// proc_pid_stat(5): utime and stime are fields 14 and 15, the state is 3.
	const utime, stime = 14 - 3, 15 - 3
	fields := serve.StatFields(string(stat))
	if len(fields) <= stime {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields after the name", pid, len(fields))
	}
	user, err1 := strconv.ParseUint(fields[utime], 10, 64)
	kernel, err2 := strconv.ParseUint(fields[stime], 10, 64)
	return float64(user+kernel) / cpuTicks, errors.Join(err1, err2)
}

// peakRSS is the most memory, in bytes, that a process had resident since it
// began or since the last resetPeak.
func peakRSS(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseVmHWM(string(status))
}

func parseVmHWM(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmHWM in the process's status")
}

// resetPeak lets the kernel's high-water mark start again; where that is not
// permitted the mark stays that of the whole run.
func resetPeak(pid int) error {
	err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}
