package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/graph/export"
)

// Whoever unmounts a store is not the daemon's parent and cannot ask for its exit status. So it
// connects to the control socket first; the daemon keeps that connection open until it has left
// with the store closed, and its last word on it is how that went. A connection that ends without a
// word is a daemon that died.
const (
	exitStatusPath  = "/v1/exit-status"
	exitStatusProto = "quarxfs-exit-status"
	// headerMount has the key of the daemon's mount, headerLog the path of its log, escaped as in
	// a URL.
	headerMount = "Quarxfs-Mount"
	headerLog   = "Quarxfs-Log"
	// AnswerTime is how long a daemon may take to answer before it counts as hanging.
	AnswerTime = 10 * time.Second
)

// An ExitStatus is the last word of a daemon that has failed: the error that it ended with, as its
// process has turned it into an exit code and a line.
type ExitStatus struct {
	Code int    `json:"exit_code"`
	Text string `json:"error,omitempty"`
}

func (s ExitStatus) Error() string { return s.Text }

// status is what there is to say of the error that the daemon ends with.
func (o *Options) status(err error) (s ExitStatus) {
	if err != nil {
		s.Code, s.Text = o.Explain(err)
	}
	return s
}

// exitWatchers are the connections of those who wait for the daemon's end.
type exitWatchers struct {
	mount mounts.Key
	log   string // "": it is standard error
	mu    struct {
		sync.Mutex
		conns map[net.Conn]struct{}
	}
}

// maxWatchers bounds them.
const maxWatchers = 64

// ServeHTTP takes the connection over.
func (w *exitWatchers) ServeHTTP(rw http.ResponseWriter, _ *http.Request) {
	// Out of the server's hands, which would close it with the others before the last word.
	c, _, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	w.mu.Lock()
	if w.mu.conns == nil {
		w.mu.conns = make(map[net.Conn]struct{})
	}
	// Whoever can open the socket could otherwise have the daemon keep connections without end.
	room := len(w.mu.conns) < maxWatchers
	if room {
		w.mu.conns[c] = struct{}{}
	}
	w.mu.Unlock()
	if !room {
		c.Close()
		return
	}
	go func() { // until the other side is gone
		_, _ = io.Copy(io.Discard, c)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.mu.conns, c)
		c.Close()
	}()
	// It is noted before it is told so.
	_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n%s: %s\r\n\r\n",
		exitStatusProto, headerMount, w.mount, headerLog, url.PathEscape(w.log))
}

// notify tells all how the daemon ended. The process ends next.
func (w *exitWatchers) notify(s ExitStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.mu.conns {
		// Somebody who does not read must not keep the process.
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_ = json.NewEncoder(c).Encode(s) // who has gone does not want to know
		c.Close()
	}
}

// ErrNoAnswer: a daemon is there, or has died, and does not answer.
var ErrNoAnswer = errors.New("the daemon does not answer")

// A Watch is a daemon whose end somebody waits for.
type Watch struct {
	PID, PIDFD int
	mount      mounts.Key // zero: of a daemon that does not say
	log        string     // its path; "": likewise, or it is standard error
	conn       net.Conn
	status     *bufio.Reader // nil: the daemon is of a version that tells no status
}

// WatchMount connects to the daemon of a store that serves a mount. ErrNoDaemon: there is none;
// ErrNoAnswer: it hangs, and what is returned besides can only be waited for.
func WatchMount(ctx context.Context, dir string, m mounts.Mount) (w *Watch, err error) {
	c, err := Dial(ctx, dir, m.Device)
	if err != nil {
		return nil, err
	}
	w = &Watch{conn: c}
	if w.PID, w.PIDFD, err = Peer(c); err != nil {
		c.Close()
		return nil, err
	}
	// Before anything is unmounted: afterwards the daemon may be gone before it is asked.
	err = w.attend()
	if err == nil && w.mount != (mounts.Key{}) && w.mount.Device != m.Device {
		w.Close() // it has another mount of the store, and that of m is dead
		return nil, ErrNoDaemon
	}
	return w, err
}

// Close gives the watch up.
func (w *Watch) Close() {
	w.conn.Close()
	unix.Close(w.PIDFD)
}

// attend asks for the exit status.
func (w *Watch) attend() error {
	// A daemon that hangs is found out here, and not after all of --wait.
	_ = w.conn.SetDeadline(time.Now().Add(AnswerTime))
	_, err := fmt.Fprintf(w.conn, "GET %s HTTP/1.1\r\nHost: daemon\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", exitStatusPath, exitStatusProto)
	r := bufio.NewReader(w.conn)
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(r, nil)
	}
	if err != nil {
		return fmt.Errorf("%w: process %d: %w", ErrNoAnswer, w.PID, err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		w.status = r
		w.mount, _ = mounts.ParseKey(resp.Header.Get(headerMount))
		w.log, _ = url.PathUnescape(resp.Header.Get(headerLog))
	}
	// The last word may take as long as the last commit.
	_ = w.conn.SetDeadline(time.Time{})
	return nil
}

// Ended returns how the daemon ended, once its process has.
func (w *Watch) Ended() error {
	if w.status == nil {
		return nil
	}
	_ = w.conn.SetReadDeadline(time.Now().Add(time.Second)) // what it said is here already
	var s ExitStatus
	if err := json.NewDecoder(w.status).Decode(&s); err != nil {
		return fmt.Errorf("%w: it died before all was kept; the store is as of its last commit; see %s", ErrNoAnswer, w.seeLog())
	}
	if s.Code == 0 {
		return nil
	}
	return s
}

// seeLog is where the daemon logs.
func (w *Watch) seeLog() string {
	if w.log == "" {
		return "what it wrote to standard error"
	}
	return export.Printable(w.log)
}

// IsAt returns whether that is the mount that the daemon made, and not a bind mount or another
// namespace's copy of it.
func (w *Watch) IsAt(m mounts.Mount) bool {
	if w.mount == (mounts.Key{}) {
		return m.Root == "/"
	}
	return w.mount == m.Key()
}

// Wait returns when the daemon has ended. ErrNoAnswer: it has not within that time.
func (w *Watch) Wait(ctx context.Context, within time.Duration) error {
	err := WaitForEnd(ctx, w.PIDFD, within)
	if errors.Is(err, ErrNoAnswer) {
		err = fmt.Errorf("%w; see %s", err, w.seeLog())
	}
	return err
}

// WaitForEnd returns when a process has ended. ErrNoAnswer: it has not within that time.
func WaitForEnd(ctx context.Context, pidfd int, within time.Duration) error {
	deadline := time.Now().Add(within)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("%w: it has not ended after %v", ErrNoAnswer, within)
		}
		// In steps, as poll does not know of ctx.
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(min(left, 200*time.Millisecond).Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the daemon: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
}
