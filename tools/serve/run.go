package serve

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// run executes a command that may leave a daemon behind. Its output goes to a
// file, because a daemon that keeps a pipe open would keep us waiting, and its
// process group is its own, so that an interrupt from the terminal reaches us
// alone and the daemon lives until we unmount it.
func run(ctx context.Context, env []string, name string, args ...string) (string, error) {
	out, err := os.CreateTemp("", "quarxfs-tools-")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()

	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The daemon may hold the output open; this says how long that may matter.
	cmd.WaitDelay = 5 * time.Second
	err = cmd.Run()

	// Read back by name: the child moved the file's position, not ours.
	said, rerr := os.ReadFile(out.Name())
	if rerr != nil {
		return "", rerr
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(string(said)))
	}
	return string(said), nil
}

// tail keeps the end of what a command said, where the reason is.
func tail(s string) string {
	const most = 2000
	s = strings.TrimSpace(s)
	if len(s) > most {
		s = "..." + s[len(s)-most:]
	}
	return s
}

// StatFields returns the fields of /proc/PID/stat from the third on, the
// state: the second, the command's name, may hold spaces and parentheses.
func StatFields(stat string) []string {
	return strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
}
