package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A tracer counts the FUSE messages that the kernel sends to one mount, for any
// server, by the tracepoint fuse:fuse_request_send (Linux 6.9 and later). It
// has a trace instance of its own, so other users of tracing are not disturbed.
// FORGETs do not pass this tracepoint.
type tracer struct {
	instance string
	mounted  string // tracefs that we mounted, or ""
}

const (
	tracefs = "/sys/kernel/tracing"
	event   = "events/fuse/fuse_request_send"
	// traceKiB is the buffer per CPU. An event takes 36 bytes, so 64 MiB is a
	// million and a half messages; more are reported as lost.
	traceKiB = 64 << 10
)

// newTracer returns an error where the kernel lacks the tracepoint or we lack
// the right.
func newTracer() (*tracer, error) {
	root, mounted, err := findTracefs()
	if err != nil {
		return nil, err
	}
	t := &tracer{mounted: mounted}
	if _, err := os.Stat(filepath.Join(root, event)); err != nil {
		return nil, errors.Join(err, t.close())
	}
	instance := filepath.Join(root, "instances", fmt.Sprintf("quarxfs-bench-%d", os.Getpid()))
	if err := os.Mkdir(instance, 0o700); err != nil {
		return nil, errors.Join(err, t.close())
	}
	t.instance = instance
	if err := t.set("buffer_size_kb", fmt.Sprint(traceKiB)); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// findTracefs mounts one in a directory of ours where the machine has none.
func findTracefs() (root, mounted string, err error) {
	if _, err := os.Stat(filepath.Join(tracefs, "events")); err == nil {
		return tracefs, "", nil
	}
	dir, err := os.MkdirTemp("", "tracefs-")
	if err != nil {
		return "", "", err
	}
	if err := unix.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
		return "", "", errors.Join(fmt.Errorf("mount tracefs: %w", err), os.Remove(dir))
	}
	return dir, dir, nil
}

func (t *tracer) set(file, value string) error {
	return os.WriteFile(filepath.Join(t.instance, file), []byte(value), 0)
}

// start counts from now the messages to the filesystem mounted at dir.
func (t *tracer) start(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	return errors.Join(
		t.set(event+"/filter", fmt.Sprintf("connection == %d", unix.Minor(st.Dev))),
		t.set("trace", ""),
		t.set(event+"/enable", "1"),
	)
}

// stop returns the count since start, by operation.
func (t *tracer) stop() (map[string]int64, error) {
	if err := t.set(event+"/enable", "0"); err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(t.instance, "trace"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseTrace(f)
}

// parseTrace counts the events of a trace file, and fails if some were lost.
func parseTrace(r io.Reader) (map[string]int64, error) {
	count := make(map[string]int64)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		var kept, written int64
		if n, _ := fmt.Sscanf(line, "# entries-in-buffer/entries-written: %d/%d", &kept, &written); n == 2 && kept != written {
			return nil, fmt.Errorf("the trace buffer kept %d of %d messages", kept, written)
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		if _, op, ok := strings.Cut(line, "(FUSE_"); ok {
			op, _, _ = strings.Cut(op, ")")
			count[op]++
		}
	}
	return count, lines.Err()
}

func (t *tracer) close() error {
	var err error
	if t.instance != "" {
		err = os.Remove(t.instance)
	}
	if t.mounted != "" {
		err = errors.Join(err, unix.Unmount(t.mounted, 0), os.Remove(t.mounted))
	}
	return err
}
