package serve

import (
	"net"
	"net/netip"
	"sync"

	"github.com/quarxtor/quarxfs/graph/budget"
)

// fairListener closes connections of an address that has its share of them.
type fairListener struct {
	net.Listener
	pool *budget.Pool
}

// Accept implements net.Listener.
func (l fairListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		who := budget.Client{c.RemoteAddr().String()}
		if addr, err := netip.ParseAddrPort(who[0]); err == nil {
			who[0] = clientOf(addr.Addr()).String()
		}
		if l.pool.TryTake(who, 1) {
			return &sharedConn{Conn: c, give: sync.OnceFunc(func() { l.pool.Give(who, 1) })}, nil
		}
		// Without an answer: a handshake would cost more than it tells.
		_ = c.Close()
	}
}

type sharedConn struct {
	net.Conn
	give func()
}

// Close implements net.Conn.
func (c *sharedConn) Close() error {
	c.give()
	return c.Conn.Close()
}
