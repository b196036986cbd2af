package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// TestHangingDaemon: whatever is asked of a store whose daemon hangs, the command gives up by
// itself, and ends when it is interrupted, although its threads wait in the kernel.
func TestHangingDaemon(t *testing.T) {
	r := newArgumentRig(t)
	hangsUntilCleanUp(t, r.store)()
	calls := hangingCalls(t, r)
	defer func(was time.Duration) { hangTime = was }(hangTime)
	for _, c := range []struct {
		name    string
		within  time.Duration // that commands wait by themselves
		stopped bool          // by a signal
		want    int
	}{
		{"gives up", 200 * time.Millisecond, false, 13},
		{"interrupted", time.Hour, true, exitInterrupted},
	} {
		hangTime = c.within
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		if c.stopped {
			stop()
		}
		var all sync.WaitGroup
		for _, args := range calls {
			all.Go(func() {
				err := runHere(ctx, args)
				if code := exitCode(err); err == nil || code != c.want {
					t.Errorf("%s: %q: exit code %d, want %d: %v", c.name, args, code, c.want, err)
				}
			})
		}
		all.Wait()
	}
	// Completion offers nothing, and ends.
	for _, line := range [][]string{{"snapshot", "show", r.mnt, ""}, {"snapshot", "show", r.store, ""}, {"du", r.mnt + "/sub/"}} {
		if err := runHere(t.Context(), append([]string{cobra.ShellCompNoDescRequestCmd}, line...)); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// hangsUntilCleanUp returns what has a store's daemon hang, all of it: the signal alone returns
// before each thread has stopped, and on a busy machine one of them would go on to answer.
func hangsUntilCleanUp(t *testing.T, store string) (hang func()) {
	t.Helper()
	pid, pidfd, err := daemonProcess(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	// Before the clean-up of the store, which asks the daemon.
	t.Cleanup(func() {
		if err := errors.Join(unix.PidfdSendSignal(pidfd, unix.SIGCONT, nil, 0), unix.Close(pidfd)); err != nil {
			t.Error(err)
		}
	})
	return func() {
		t.Helper()
		if err := unix.PidfdSendSignal(pidfd, unix.SIGSTOP, nil, 0); err != nil {
			t.Fatal(err)
		}
		for ; !stopped(t, pid); time.Sleep(time.Millisecond) {
		}
	}
}

// stopped reports whether all threads of a process are.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(names) == 0 {
		t.Fatalf("threads of process %d: %v", pid, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			t.Fatal(err)
		}
		// The state is behind the program's name, which is in brackets.
		if _, state, _ := bytes.Cut(b, []byte(") ")); !bytes.HasPrefix(state, []byte("T")) {
			return false
		}
	}
	return true
}

// Flags without which a command asks for them first.
var neededFlags = map[string][]string{"snapshot prune": {"--keep-last", "1"}, "sync follow": {"--every", "1h"}}

// hangingCalls are all commands that look for a store, in each way that leads to the daemon.
func hangingCalls(t *testing.T, r *argumentRig) (calls [][]string) {
	all, _ := storeCommands(t)
	for name, args := range all {
		command := strings.Fields(name)
		for _, store := range []string{r.mnt, r.store} {
			// Without the daemon's word: a rebuild needs the store for itself, whoever has it, and
			// audit reads a file of the store.
			alone := store == r.store && (name == "rebuild" || name == "audit")
			if name != "serve" && !alone {
				calls = append(calls, slices.Concat(command, []string{store}, args, neededFlags[name]))
			}
		}
	}
	return append(calls, []string{"mount", r.store, r.mnt, "--foreground"}, []string{"mount", r.decoy, r.mnt + "/sub", "--foreground"},
		[]string{"serve", r.mnt, "--listen", "127.0.0.1:0"}, []string{"init", r.mnt + "/sub/new"}, []string{"simulate", r.top, "--like", r.mnt},
		[]string{"umount", "--force", "--wait", "10ms", r.mnt})
}

// runHere runs a command in this process, without its output.
func runHere(ctx context.Context, args []string) error {
	cmd := newRoot()
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	cmd.SetIn(strings.NewReader(""))
	cmd.SetArgs(args)
	return cmd.ExecuteContext(ctx)
}

// A lineSignal is standard error of a command, and tells that a line with some words has come.
type lineSignal struct {
	words string
	mu    sync.Mutex
	text  bytes.Buffer
	seen  chan struct{}
}

func (s *lineSignal) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := strings.Contains(s.text.String(), s.words)
	s.text.Write(p)
	if !had && strings.Contains(s.text.String(), s.words) {
		close(s.seen)
	}
	return len(p), nil
}

// TestDaemonHangsAmidARequest: a command whose daemon begins to hang says so, goes on to wait, and
// ends when it is interrupted.
func TestDaemonHangsAmidARequest(t *testing.T) {
	r := newArgumentRig(t)
	hang := hangsUntilCleanUp(t, r.store)
	defer func(was time.Duration) { hangLook = was }(hangLook)
	hangLook = 100 * time.Millisecond
	body, feed := io.Pipe()
	defer feed.Close()
	said := &lineSignal{words: "does not answer any more", seen: make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	cmd := newRoot()
	cmd.SetArgs([]string{"put", r.mnt, "-"})
	cmd.SetIn(body)
	cmd.SetOut(io.Discard)
	cmd.SetErr(said)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	// Returns when the request has begun to take it.
	if _, err := feed.Write([]byte("some bytes")); err != nil {
		t.Fatal(err)
	}
	hang()
	select {
	case <-said.seen:
	case err := <-ended:
		t.Fatalf("it did not wait: %v", err)
	}
	stop()
	feed.Close() // the reader of a pipe in this process ends with nothing else
	if err := <-ended; exitCode(err) != exitInterrupted {
		t.Errorf("interrupted: %v", err)
	}
}
