// Package etcd has the cluster's register in etcd (https://etcd.io): a client of
// it, and what a member of it is told. With its package embedded it is all that knows
// of etcd, and quarxfs itself is never linked with it.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quarxtor/quarxfs/remote/cluster/register"
)

const (
	callTime     = 5 * time.Second // a call without an answer by then has none
	pingEvery    = 5 * time.Second // of connections that carry nothing
	pingTime     = 3 * time.Second
	rewatchAfter = time.Second

	hedgeAfter = 150 * time.Millisecond // a read that has no answer by then is asked of another member
	mostHedged = 3                      // as many as there are members, mostly
)

// A Client is a register in etcd.
type Client struct {
	etcd   *clientv3.Client
	scheme string // of its members' addresses
}

var _ register.Register = (*Client)(nil)

// ClientConfig says where etcd is.
type ClientConfig struct {
	Endpoints []string    // host:port of members
	TLS       *tls.Config // nil: none, which only an etcd of this machine's own may have
	Prefix    string      // of all keys, such as "/quarxfs/ID/"
}

// Dial returns a client, which connects when it is first used.
func Dial(c ClientConfig) (*Client, error) {
	client := &Client{scheme: Scheme(c.TLS != nil)}
	etcd, err := clientv3.New(clientv3.Config{
		Endpoints:            client.urls(c.Endpoints),
		TLS:                  c.TLS,
		DialTimeout:          callTime,
		DialKeepAliveTime:    pingEvery,
		DialKeepAliveTimeout: pingTime,
		PermitWithoutStream:  true,
		Logger:               zap.NewNop(), // every failure is returned to the caller
	})
	if err != nil {
		return nil, fmt.Errorf("etcd at %v: %w", c.Endpoints, err)
	}
	etcd.KV = namespace.NewKV(etcd.KV, c.Prefix)
	etcd.Watcher = namespace.NewWatcher(etcd.Watcher, c.Prefix)
	etcd.Lease = namespace.NewLease(etcd.Lease, c.Prefix)
	client.etcd = etcd
	return client, nil
}

// Scheme is that of members' addresses.
func Scheme(tls bool) string {
	if tls {
		return "https"
	}
	return "http"
}

// Use has the client talk to these members, host:port, from now on. Who uses it asks
// for the members often: those that it began with may all be gone by and by.
func (c *Client) Use(addrs []string) { c.etcd.SetEndpoints(c.urls(addrs)...) }

func (c *Client) urls(addrs []string) []string {
	var urls []string
	for _, a := range addrs {
		urls = append(urls, c.scheme+"://"+a)
	}
	return urls
}

// Close ends every watch and lease of the client, too.
func (c *Client) Close() error {
	err := c.etcd.Close()
	if errors.Is(err, context.Canceled) {
		return nil // what Close itself has broken off
	}
	return err
}

func (c *Client) Get(ctx context.Context, key string) (register.Entry, error) {
	r, err := hedged(ctx, func(call context.Context) (*clientv3.GetResponse, error) { return c.etcd.Get(call, key) })
	if err != nil {
		return register.Entry{}, readError(ctx, err)
	}
	if len(r.Kvs) == 0 {
		return register.Entry{}, register.ErrNotFound
	}
	kv := r.Kvs[0]
	return register.Entry{Key: string(kv.Key), Value: kv.Value, Revision: kv.ModRevision}, nil
}

func (c *Client) List(ctx context.Context, prefix string) ([]register.Entry, int64, error) {
	r, err := hedged(ctx, func(call context.Context) (*clientv3.GetResponse, error) {
		return c.etcd.Get(call, prefix, clientv3.WithPrefix())
	})
	if err != nil {
		return nil, 0, readError(ctx, err)
	}
	entries := make([]register.Entry, len(r.Kvs))
	for i, kv := range r.Kvs {
		entries[i] = register.Entry{Key: string(kv.Key), Value: kv.Value, Revision: kv.ModRevision}
	}
	return entries, r.Header.Revision, nil
}

func (c *Client) Commit(ctx context.Context, t register.Txn) (int64, error) {
	if err := errors.Join(t.Validate(), ctx.Err()); err != nil {
		return 0, err
	}
	var conditions []clientv3.Cmp
	for _, cond := range t.If {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(cond.Key), "=", cond.Revision))
	}
	var ops []clientv3.Op
	for _, e := range t.Put {
		ops = append(ops, clientv3.OpPut(e.Key, string(e.Value)))
	}
	for _, key := range t.Delete {
		ops = append(ops, clientv3.OpDelete(key))
	}
	// One transaction, which etcd does as a whole: conditions that were read before would be a
	// guess.
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := c.etcd.Txn(call).If(conditions...).Then(ops...).Commit()
	if err != nil {
		return 0, commitError(err)
	}
	if !r.Succeeded {
		return 0, register.ErrConflict
	}
	return r.Header.Revision, nil
}

func (c *Client) Watch(ctx context.Context, prefix string, after int64) <-chan register.Event {
	out := make(chan register.Event)
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			var reset bool
			if after, reset = c.watch(ctx, prefix, after, out); reset {
				send(ctx, out, register.Event{Reset: true})
				return
			}
			select { // the members may be changing their leader
			case <-time.After(rewatchAfter):
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// watch sends what comes until the watch is broken off, and returns the last
// revision that was sent whole. reset: those behind it are gone.
func (c *Client) watch(ctx context.Context, prefix string, after int64, out chan<- register.Event) (last int64, reset bool) {
	// Without a leader a watch would be silent, and so looks like one of a register at rest.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	// Without WithFragment a batch has whole revisions, so its last one is where to go on.
	for batch := range c.etcd.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(after+1)) {
		if batch.CompactRevision > 0 {
			return after, true
		}
		for _, ev := range batch.Events {
			event := register.Event{
				Entry:   register.Entry{Key: string(ev.Kv.Key), Value: ev.Kv.Value, Revision: ev.Kv.ModRevision},
				Deleted: ev.Type == clientv3.EventTypeDelete,
			}
			if !send(ctx, out, event) {
				return after, false
			}
		}
		if n := len(batch.Events); n > 0 {
			after = batch.Events[n-1].Kv.ModRevision
		}
	}
	return after, false
}

func send(ctx context.Context, out chan<- register.Event, ev register.Event) bool {
	select {
	case out <- ev:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Client) Lease(ctx context.Context, ttl time.Duration) (register.Lease, error) {
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	granted, err := c.etcd.Grant(call, int64(math.Ceil(ttl.Seconds())))
	if err != nil {
		return nil, readError(ctx, err)
	}
	l := &lease{client: c, id: granted.ID, lost: make(chan struct{})}
	keep, stop := context.WithCancel(context.Background()) // beyond the caller's ctx, until Close
	l.stop = stop
	answers, err := c.etcd.KeepAlive(keep, l.id)
	if err != nil {
		stop()
		return nil, readError(ctx, err)
	}
	go func() {
		defer close(l.lost)
		for range answers { // closed as soon as ttl has passed without one
		}
	}()
	return l, nil
}

type lease struct {
	client *Client
	id     clientv3.LeaseID
	stop   context.CancelFunc
	lost   chan struct{}
}

func (l *lease) Put(ctx context.Context, key string, value []byte) error {
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err := l.client.etcd.Put(call, key, string(value), clientv3.WithLease(l.id))
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return register.ErrLeaseLost
	}
	return readError(ctx, err)
}

func (l *lease) Lost() <-chan struct{} { return l.lost }

func (l *lease) Close(ctx context.Context) error {
	l.stop()
	<-l.lost
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err := l.client.etcd.Revoke(call, l.id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return readError(ctx, err)
}

// hedged asks again each hedgeAfter while there is no answer, and returns the first good one. A
// member that hangs keeps its connection for as long as pings need to tell, and each call is for
// the next member in turn. Only what changes nothing may be asked so.
func hedged[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, mostHedged) // room for all: nobody reads those that come too late
	begin := func() {
		value, err := ask(ctx)
		answers <- answer{value, err}
	}
	go begin()
	again := time.NewTicker(hedgeAfter)
	defer again.Stop()
	for asked, ended := 1, 0; ; {
		select {
		case a := <-answers:
			// A failure counts when nobody else is left who may answer.
			if ended++; a.err == nil || ended == asked {
				return a.value, a.err
			}
		case <-again.C:
			if asked < mostHedged {
				asked++
				go begin()
			}
		}
	}
}

// readError is for calls that are harmless to repeat: whatever kept the answer
// back, the register is out of reach, unless the caller himself has given up.
func readError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %v", register.ErrUnavailable, err)
}

// commitError tells what surely was not done from what may have been.
func commitError(err error) error {
	// etcd's own word that it did not take the request.
	for _, refused := range []error{
		rpctypes.ErrNoSpace, rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyOps,
		rpctypes.ErrTooManyRequests, rpctypes.ErrDuplicateKey, rpctypes.ErrCorrupt,
	} {
		if errors.Is(err, refused) {
			return fmt.Errorf("%w: %v", register.ErrUnavailable, err)
		}
	}
	if status.Code(err) == codes.InvalidArgument {
		return err
	}
	return fmt.Errorf("%w: %w", register.ErrUncertain, err)
}
