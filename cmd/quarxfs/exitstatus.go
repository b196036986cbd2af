package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
)

// Whoever unmounts a store is not the daemon's parent and cannot ask for its exit status. So it
// connects to the control socket first; the daemon keeps that connection open until it has left
// with the store closed, and its last word on it is how that went. A connection that ends without a
// word is a daemon that died.
const (
	exitStatusPath  = "/v1/exit-status"
	exitStatusProto = "quarxfs-exit-status"
	// headerMount has the key of the daemon's mount, headerLog the path of its log, escaped as in a URL.
	headerMount = "Quarxfs-Mount"
	headerLog   = "Quarxfs-Log"
	// answerTime is how long a daemon may take to answer before it counts as hanging.
	answerTime = 10 * time.Second
)

// An exitStatus is the last word of a daemon.
type exitStatus struct {
	Code  int    `json:"exit_code"`
	Error string `json:"error,omitempty"`
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
	c, _, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	w.mu.Lock()
	if w.mu.conns == nil {
		w.mu.conns = make(map[net.Conn]struct{})
	}
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

// tell says to all how the daemon ended. The process ends next.
func (w *exitWatchers) tell(err error) {
	s := exitStatus{}
	if err != nil {
		s = exitStatus{exitCode(err), oneLine(err)}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.mu.conns {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_ = json.NewEncoder(c).Encode(s) // who has gone does not want to know
		c.Close()
	}
}

// A daemonWatch is a daemon whose end somebody waits for.
type daemonWatch struct {
	pid, pidfd int
	mount      mounts.Key // zero: of a daemon that does not say
	log        string     // its path; "": likewise, or it is standard error
	conn       net.Conn
	status     *bufio.Reader // nil: the daemon is of a version that tells no status
}

// watchDaemon connects to the daemon of a store that serves a mount. errNoDaemon: there is none;
// errNoAnswer: it hangs, and what is returned besides can only be waited for.
func watchDaemon(ctx context.Context, dir string, m mounts.Mount) (w *daemonWatch, err error) {
	c, err := dialControl(ctx, dir, m.Device)
	if err != nil {
		return nil, err
	}
	w = &daemonWatch{conn: c}
	if w.pid, w.pidfd, err = peerProcess(c); err != nil {
		c.Close()
		return nil, err
	}
	err = w.attend()
	if err == nil && w.mount != (mounts.Key{}) && w.mount.Device != m.Device {
		w.close() // it has another mount of the store, and that of m is dead
		return nil, errNoDaemon
	}
	return w, err
}

func (w *daemonWatch) close() {
	w.conn.Close()
	unix.Close(w.pidfd)
}

// attend asks for the exit status.
func (w *daemonWatch) attend() error {
	_ = w.conn.SetDeadline(time.Now().Add(answerTime))
	_, err := fmt.Fprintf(w.conn, "GET %s HTTP/1.1\r\nHost: daemon\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", exitStatusPath, exitStatusProto)
	r := bufio.NewReader(w.conn)
	var resp *http.Response
	if err == nil {
		resp, err = http.ReadResponse(r, nil)
	}
	if err != nil {
		return fmt.Errorf("%w: process %d: %w", errNoAnswer, w.pid, err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		w.status = r
		w.mount, _ = mounts.ParseKey(resp.Header.Get(headerMount))
		w.log, _ = url.PathUnescape(resp.Header.Get(headerLog))
	}
	_ = w.conn.SetDeadline(time.Time{})
	return nil
}

// ended returns how the daemon ended, once its process has.
func (w *daemonWatch) ended() error {
	if w.status == nil {
		return nil
	}
	_ = w.conn.SetReadDeadline(time.Now().Add(time.Second)) // what it said is here already
	var s exitStatus
	if err := json.NewDecoder(w.status).Decode(&s); err != nil {
		return fmt.Errorf("%w: it died before all was kept; the store is as of its last commit; see %s", errNoAnswer, w.seeLog())
	}
	if s.Code == exitOK {
		return nil
	}
	return coded{s.Code, s.Error}
}

// seeLog is where the daemon logs.
func (w *daemonWatch) seeLog() string {
	if w.log == "" {
		return "what it wrote to standard error"
	}
	return printable(w.log)
}

// isAt returns whether that is the mount that the daemon made, and not a bind mount or another
// namespace's copy of it.
func (w *daemonWatch) isAt(m mounts.Mount) bool {
	if w.mount == (mounts.Key{}) {
		return m.Root == "/"
	}
	return w.mount == m.Key()
}
