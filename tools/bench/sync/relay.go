package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
)

// A relay makes the control socket of a mounted store reachable over TCP, and
// counts what passes.
type relay struct {
	l     net.Listener
	bytes atomic.Int64 // in both directions
}

func listen(addr, store string) (*relay, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	r := &relay{l: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.pass(c, store)
		}
	}()
	return r, nil
}

func (r *relay) url() string { return "http://" + r.l.Addr().String() }

// pass joins a connection with a new one of the socket.
func (r *relay) pass(c net.Conn, store string) {
	defer c.Close()
	// By a descriptor, since a socket's path has at most 108 bytes and the store's may be longer.
	dir, err := os.Open(store)
	if err != nil {
		return
	}
	up, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/control.sock", dir.Fd()))
	dir.Close()
	if err != nil {
		return
	}
	defer up.Close()
	// Room for both, of which only the first is waited for.
	done := make(chan struct{}, 2)
	join := func(to io.Writer, from io.Reader) {
		_, _ = io.Copy(counter{to, &r.bytes}, from)
		done <- struct{}{}
	}
	go join(up, c)
	go join(c, up)
	// When either side has ended, closing both ends the other.
	<-done
}

type counter struct {
	io.Writer
	n *atomic.Int64
}

func (c counter) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// sizeOf adds up the files below a directory.
func sizeOf(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}
