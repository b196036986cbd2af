// Package mirrored lets a daemon write a volume whose mirrors have each commit before it is
// acknowledged. It finds the register by the agent of its own node, and the mirrors by what that
// one says: the stream goes to them directly, with the node's certificate, so that an agent which
// is restarted interrupts nothing.
package mirrored

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/carrier"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
	"github.com/quarxtor/quarxfs/store/db"
)

// Options are what a writer is opened with.
type Options struct {
	MemTable int64         // of the database
	LockWait time.Duration // for who was killed to let go of the directory
	Log      *slog.Logger
}

// Open begins an epoch of the volume whose copy is in dir, which has to be its home's: the store in
// dir is to be opened with the writer as its disk and follower. cluster.ErrFenced: another node is
// the home; client.ErrNoAgent, client.ErrNoQuorum: the register cannot be asked; carrier.ErrMayNot.
func Open(ctx context.Context, dir string, o Options) (*carrier.Writer, error) {
	origin, err := carrier.OriginOf(dir)
	if err != nil {
		return nil, fmt.Errorf("%s is a copy of a mirrored volume, of which it does not know the node: %w", dir, err)
	}
	n := &node{agent: client.Local(origin.Agent), dir: origin.Agent, id: origin.Volume}
	if n.view, err = n.agent.Mirror(ctx, n.id); err != nil {
		return nil, err
	}
	// Before anything is promised: the copy would refuse the home that there is.
	if v := n.view.Volume; v.Home != origin.Node {
		return nil, fmt.Errorf("%s: %w: %s is its home; take it over with quarxfs cluster volume takeover %s", v.Name, cluster.ErrFenced, v.Home, v.Name)
	}
	replica, err := openReplica(ctx, dir, carrier.ReplicaOptions{
		Node: origin.Node, Volume: origin.Volume, MemTable: o.MemTable, Log: o.Log,
	}, o.LockWait)
	if err != nil {
		return nil, err
	}
	w, err := replica.Promote(ctx, carrier.WriterOptions{
		Register: n, Dial: n.dial, Mirrors: n.view.Volume.Mirrored.Nodes(), Log: o.Log,
	})
	if err != nil {
		return nil, errors.Join(err, replica.Close())
	}
	return w, nil
}

func openReplica(ctx context.Context, dir string, o carrier.ReplicaOptions, wait time.Duration) (*carrier.Replica, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		r, err := carrier.OpenReplica(dir, o)
		if !errors.Is(err, db.ErrLocked) {
			return r, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// A node is this machine's part in the cluster, as its agent tells.
type node struct {
	agent *client.Agent
	dir   string
	id    string // of the volume

	mu   sync.Mutex // over no call
	view client.MirrorView
}

// learn keeps what the agent says: where mirrors are is asked for while that one is away, too.
func (n *node) learn(v client.MirrorView) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.view = v
}

func (n *node) known() client.MirrorView {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.view
}

// Read returns the register's record.
func (n *node) Read(ctx context.Context) (mirror.Record, error) {
	v, err := n.agent.Mirror(ctx, n.id)
	if err == nil {
		n.learn(v)
	}
	return v.Record, err
}

// Swap replaces it: carrier.ErrChanged.
func (n *node) Swap(ctx context.Context, next mirror.Record) (mirror.Record, error) {
	v, err := n.agent.SwapMirror(ctx, n.id, next)
	if err != nil {
		return mirror.Record{}, err
	}
	n.learn(v)
	if v.Stale {
		return v.Record, carrier.ErrChanged
	}
	return v.Record, nil
}

// askTime is how long the agent may take to say where a mirror is, before the last that it said is
// used: what is left of a dial's time is for the mirror.
const askTime = 3 * time.Second

// dial reaches a mirror.
func (n *node) dial(ctx context.Context, name string) (net.Conn, error) {
	ask, cancel := context.WithTimeout(ctx, askTime)
	v, err := n.agent.Mirror(ask, n.id)
	cancel()
	if err == nil {
		n.learn(v)
	}
	v = n.known()
	address := v.Addresses[name]
	if address == "" {
		return nil, fmt.Errorf("where %s is reached is not known", name)
	}
	identity, err := client.Identity(n.dir)
	if err != nil {
		return nil, err
	}
	c, err := (&tls.Dialer{Config: identity.Client()}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if err := upgrade(ctx, c, name, "https://"+address+client.MirrorPath(v.Generation, n.id)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// upgrade makes a connection to an agent one to a copy.
func upgrade(ctx context.Context, c net.Conn, name, url string) error {
	if cert := c.(*tls.Conn).ConnectionState().PeerCertificates[0]; cert.Subject.CommonName != name {
		return fmt.Errorf("%s answers in place of %s", cert.Subject.CommonName, name)
	}
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", client.MirrorProtocol)
	if err := req.Write(c); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	answer, err := http.ReadResponse(r, req)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return client.Answered(answer)
	}
	// The copy speaks only when it is greeted.
	if r.Buffered() > 0 {
		return fmt.Errorf("%w: what answers is no mirror", client.ErrVersion)
	}
	return nil
}
