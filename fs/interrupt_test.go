package fs

import (
	"context"
	"os"
	"testing"
)

func TestKillPending(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tx\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n": true,
		"SigPnd:\t0000000000000101\n":                                      true,
		"SigPnd:\t0000000000000200\nShdPnd:\t0000000000000100\n":           false, // another thread's to take
		"SigPnd:\t0000000000000000\n":                                      false,
		"SigPnd:\tx\n":                                                     false,
		"":                                                                 false,
	} {
		if got := killPending(status); got != want {
			t.Errorf("%q: %v", status, got)
		}
	}
	if dying(uint32(os.Getpid())) || dying(0) {
		t.Error("this process is taken for one that is being killed")
	}
}

func TestInterruptible(t *testing.T) {
	cancel := make(chan struct{})
	ctx := interruptible{context.Background(), cancel}
	if ctx.Err() != nil {
		t.Error("interrupted from the start")
	}
	close(cancel)
	<-ctx.Done()
	if ctx.Err() != context.Canceled {
		t.Errorf("interrupted: %v", ctx.Err())
	}
	// Derived contexts end as well.
	derived, stop := context.WithCancel(ctx)
	defer stop()
	<-derived.Done()
}
