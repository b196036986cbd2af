package etcd

import (
	"context"
	"net/url"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A Member is one of the cluster's etcd.
type Member struct {
	Name    string // empty until it has started for the first time
	Peer    string // host:port
	Client  string // host:port; empty until it has started
	Learner bool   // it follows, but does not vote yet
	id      uint64
}

// Members lists those that the cluster's etcd knows.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	r, err := hedged(ctx, func(call context.Context) (*clientv3.MemberListResponse, error) { return c.etcd.MemberList(call) })
	if err != nil {
		return nil, readError(ctx, err)
	}
	members := make([]Member, len(r.Members))
	for i, m := range r.Members {
		members[i] = Member{Name: m.Name, Peer: host(m.PeerURLs), Client: host(m.ClientURLs), Learner: m.IsLearner, id: m.ID}
	}
	return members, nil
}

func host(urls []string) string {
	if len(urls) == 0 {
		return ""
	}
	u, err := url.Parse(urls[0])
	if err != nil {
		return ""
	}
	return u.Host
}

// AddMember announces the member whose peers reach it at peer, as one that does
// not vote: a new member that never starts takes no part in the quorum. It is
// nothing if it is known and has not started. One that has started there is of a node
// that was removed: its log is gone, and a member that forgets what it had is never one again.
func (c *Client) AddMember(ctx context.Context, peer string) error {
	members, err := c.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Peer != peer {
			continue
		}
		if m.Name == "" {
			return nil
		}
		if err := c.RemoveMember(ctx, peer); err != nil {
			return err
		}
	}
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err = c.etcd.MemberAddAsLearner(call, []string{c.scheme + "://" + peer})
	return readError(ctx, err)
}

// PromoteMember lets the member at peer vote: an error until it has caught up with the others.
func (c *Client) PromoteMember(ctx context.Context, peer string) error {
	return c.withMember(ctx, peer, func(ctx context.Context, m Member) error {
		if !m.Learner {
			return nil
		}
		_, err := c.etcd.MemberPromote(ctx, m.id)
		return err
	})
}

// RemoveMember takes it out of the quorum. It is nothing if it is not known.
func (c *Client) RemoveMember(ctx context.Context, peer string) error {
	return c.withMember(ctx, peer, func(ctx context.Context, m Member) error {
		_, err := c.etcd.MemberRemove(ctx, m.id)
		return err
	})
}

func (c *Client) withMember(ctx context.Context, peer string, do func(context.Context, Member) error) error {
	members, err := c.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Peer == peer {
			call, cancel := context.WithTimeout(ctx, callTime)
			defer cancel()
			return readError(ctx, do(call, m))
		}
	}
	return nil
}
