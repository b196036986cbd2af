package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

const (
	readyLine  = "\x00ready\n"
	failPrefix = "\x00failed "
)

// Start starts this command again in a session of its own, with its arguments and two flags behind
// the first. It returns when that one serves the mount, or with its error: an ExitStatus. What it
// has to say then goes to out, and what it warns of to stderr.
func Start(ctx context.Context, args []string, out, stderr io.Writer) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	flags := []string{args[0], "--foreground", "--ready-fd=3"}
	child := exec.Command(exe, append(flags, args[1:]...)...)
	child.Args[0] = "quarxfs"
	child.Stdout, child.Stderr = w, w // until the log is open
	child.ExtraFiles = []*os.File{w}
	// Its own session, so that a closed terminal or ^C does not reach it.
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = child.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = child.Process.Signal(syscall.SIGTERM) })
	defer stop()
	// Ends when the child has let go of all copies of the pipe: it serves, or is dead.
	said, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if warns, says, ok := bytes.Cut(said, []byte(readyLine)); ok {
		_, werr := stderr.Write(warns)
		_, err := out.Write(says)
		return errors.Join(werr, err, child.Process.Release())
	}
	werr := child.Wait()
	// Interrupted: whatever the child says then is about its leaving.
	if ctx.Err() != nil {
		return ctx.Err()
	}
	before, reason, ok := bytes.Cut(said, []byte(failPrefix))
	code, text, ok2 := strings.Cut(strings.TrimSpace(string(reason)), " ")
	n, err := strconv.Atoi(code)
	if !ok || !ok2 || err != nil {
		return fmt.Errorf("the daemon died: %v: %s", werr, bytes.TrimSpace(before))
	}
	_, err = stderr.Write(before) // fusermount3 complains there, too
	return errors.Join(err, ExitStatus{n, text})
}

// Report tells the waiting parent why the daemon did not come up. Once the
// mount is up the parent has left, and the error goes to the log.
func (o *Options) Report(err error) error {
	if err == nil || o.ReadyFD < 0 {
		return err
	}
	w := os.NewFile(uintptr(o.ReadyFD), "ready")
	s := o.status(err)
	fmt.Fprintf(w, "%s%d %s\n", failPrefix, s.Code, s.Text)
	w.Close()
	os.Exit(s.Code) // main would say it again
	return nil
}

// ready ends the parent's wait, and has it print something.
func (o *Options) ready(says string) error {
	w := os.NewFile(uintptr(o.ReadyFD), "ready")
	o.ReadyFD = -1
	_, err := io.WriteString(w, readyLine+says)
	return errors.Join(err, w.Close())
}
