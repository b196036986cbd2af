package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd"
	"github.com/quarxtor/quarxfs/remote/cluster/pki"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/store/routine"
)

// A member is the node's part in the quorum: its member of etcd, if it is a voter, and what a voter
// decides about those of others.
type member struct {
	dir      Dir
	settings Settings
	signer   *pki.Authority // nil: it is no voter
	log      *slog.Logger
	start    etcd.Start
	etcd     quorum
	cluster  *cluster.Cluster
	revoked  []string // serial numbers in the file that etcd reads; nil: since the start not looked at
}

// run has the member of etcd run until ctx ends.
func (m *member) run(ctx context.Context) error {
	log, err := os.OpenFile(m.dir.path("etcd.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	server, err := m.startEtcd(ctx, log)
	if err != nil {
		return err
	}
	defer server.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Failed():
		if _, known := m.cluster.Node(ctx, m.settings.Node.Name); errors.Is(known, cluster.ErrNoNode) {
			return ErrRemoved
		}
		return fmt.Errorf("the node's etcd has stopped: %w", err)
	}
}

// beginRevocations makes an empty list of certificates where there is none: without the file etcd
// lets nobody in. reconcile brings it up to date, and does not run yet: it would be undone here.
func (m *member) beginRevocations() error {
	if !m.settings.Node.Has(cluster.RoleVoter) {
		return nil
	}
	if _, err := os.Stat(m.dir.path(revokedName)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return m.revoke(nil)
}

// startEtcd starts the node's member. A new one must know exactly the members that there are, and
// others may be joining at the same time: then it asks again.
func (m *member) startEtcd(ctx context.Context, log io.Writer) (etcd.Server, error) {
	n := m.settings.Node
	conf := etcd.ServerConfig{
		Name: n.Name, Dir: m.dir.path(etcdName), Listen: m.settings.Listen, Peer: n.Peer, Client: n.Client,
		Members: map[string]string{n.Name: n.Peer}, Join: !m.settings.Founder, Token: m.settings.Cluster.ID,
		Cert: m.dir.path(certName), Key: m.dir.path(keyName), CA: m.dir.path(authorityName),
		Revoked: m.dir.path(revokedName), Log: log,
	}
	for tries := firstStarts; ; tries-- {
		// Looked at each time: a start that failed may have made the data, and is a restart then.
		_, err := os.Stat(filepath.Join(conf.Dir, "member"))
		first := errors.Is(err, fs.ErrNotExist)
		if first && conf.Join {
			if conf.Members, err = m.beMember(ctx, n); err != nil {
				if err := routine.Sleep(ctx, retryAfter); err != nil {
					return nil, err
				}
				continue
			}
		}
		server, err := m.start(ctx, conf)
		if err == nil || !first || tries == 0 || ctx.Err() != nil {
			return server, err
		}
		m.log.Warn("the member of etcd does not start", "err", err)
		if err := routine.Sleep(ctx, retryAfter); err != nil {
			return nil, err
		}
	}
}

// beMember announces the node's member, which has no data: if it had any, they are lost, and it
// must not be taken for the one that had them. It returns where the members reach each other.
func (m *member) beMember(ctx context.Context, n cluster.Node) (map[string]string, error) {
	if _, err := m.cluster.Node(ctx, n.Name); err != nil {
		return nil, err // it was removed, or nobody decides now
	}
	if err := m.etcd.AddMember(ctx, n.Peer); err != nil {
		return nil, err
	}
	return m.membersByName(ctx)
}

// membersByName returns where the members of etcd reach each other, with those that
// have not started yet, whose names etcd does not know.
func (m *member) membersByName(ctx context.Context) (map[string]string, error) {
	members, err := m.etcd.Members(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := m.cluster.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for _, o := range members {
		for _, n := range nodes {
			if n.Peer == o.Peer {
				found[n.Name] = n.Peer
			}
		}
	}
	return found, nil
}

// maintain is a voter's care for the quorum: who may connect, who is a member, who votes.
func (m *member) maintain(ctx context.Context, nodes cluster.Membership, members []etcd.Member) error {
	if revoked := slices.Sorted(maps.Keys(nodes.Revoked)); !slices.Equal(revoked, m.revoked) {
		if err := m.revoke(revoked); err != nil {
			return err
		}
		m.revoked = revoked // only this goroutine looks at them
	}
	if err := m.dropStrangers(ctx, nodes.Nodes, members); err != nil {
		return err
	}
	if len(members) != mostVoters {
		return nil
	}
	// Two voters bear no failure, as one does not, and two can fail: so the second votes
	// only when there is a third.
	for _, o := range members {
		if o.Learner && o.Name != "" {
			if err := m.etcd.PromoteMember(ctx, o.Peer); err != nil {
				m.log.Debug("a member does not vote yet", "member", o.Name, "err", err)
			}
		}
	}
	return nil
}

// revoke has etcd refuse new connections with these certificates.
func (m *member) revoke(serials []string) error {
	list, err := m.signer.Revoke(serials, time.Now())
	if err != nil {
		return err
	}
	return durable.Write(m.dir.path(revokedName), list)
}

// dropStrangers takes members out of the quorum that are nodes no more, as after
// a removal that was broken off.
func (m *member) dropStrangers(ctx context.Context, nodes []cluster.Node, members []etcd.Member) error {
	for _, o := range members {
		known := slices.ContainsFunc(nodes, func(n cluster.Node) bool { return n.Peer == o.Peer })
		if !known {
			if err := m.etcd.RemoveMember(ctx, o.Peer); err != nil {
				return err
			}
		}
	}
	return nil
}
