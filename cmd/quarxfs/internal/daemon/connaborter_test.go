package daemon

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A thread has ended when it is a zombie, too: a process's first one is that until all others have
// ended, and one of them may wait for the mount.
func TestEnded(t *testing.T) {
	if ended(os.Getpid(), strconv.Itoa(unix.Gettid())) {
		t.Error("this thread has ended")
	}
	child := exec.Command("cat")
	life, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := child.Process.Pid
	if ended(pid, strconv.Itoa(pid)) {
		t.Error("a process that runs has ended")
	}
	life.Close()
	// Nobody has waited for it yet.
	for until := time.Now().Add(time.Minute); !ended(pid, strconv.Itoa(pid)); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("a zombie has not ended")
		}
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	if !ended(pid, strconv.Itoa(pid)) {
		t.Error("a process that is gone has not ended")
	}
}
