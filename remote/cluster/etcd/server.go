package etcd

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// The register holds a few megabytes: decisions, never measurements.
	mostBytes = 256 << 20
	// Two wait for each other where the first three nodes come one by one.
	mostLearners = 2
	// Rot in one member's database is looked for this often.
	corruptCheck = 12 * time.Hour
)

// ServerConfig describes one member of the cluster's etcd.
type ServerConfig struct {
	Name    string            // of the member; unique in the cluster
	Dir     string            // of its data, which it makes
	Listen  string            // host that it listens on
	Peer    string            // host:port at which members reach it
	Client  string            // host:port at which clients reach it
	Members map[string]string // name -> host:port of peers, this member included, when Dir is new
	Join    bool              // Members exist, rather than begin together with this one
	Token   string            // the cluster's ID: members of another are refused
	Cert    string            // PEM files; empty: no TLS, for tests alone
	Key, CA string
	Revoked string    // DER file of the certificates that count no more, read at each connection; empty: none
	Log     io.Writer // warnings and errors in JSON lines; nil: none
}

// A Server is a member that runs inside this process.
type Server struct {
	etcd *embed.Etcd
	stop sync.Once // embed's Close panics the second time
}

// Start returns when the member has joined its peers and serves, which it cannot
// before a quorum of them is there: it waits until ctx ends.
func Start(ctx context.Context, c ServerConfig) (*Server, error) {
	conf, err := c.embedded()
	if err != nil {
		return nil, err
	}
	e, err := embed.StartEtcd(conf)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", c.Dir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
		return &Server{etcd: e}, nil
	case err = <-e.Err():
	case <-ctx.Done():
		err = ctx.Err()
	}
	e.Close()
	return nil, fmt.Errorf("start etcd in %s: %w", c.Dir, err)
}

func (c ServerConfig) embedded() (*embed.Config, error) {
	conf := embed.NewConfig()
	conf.Name, conf.Dir = c.Name, c.Dir
	conf.InitialClusterToken = c.Token
	conf.ClusterState = embed.ClusterStateFlagNew
	if c.Join {
		conf.ClusterState = embed.ClusterStateFlagExisting
	}
	scheme := schemeOf(c.Cert != "")
	if c.Cert != "" {
		conf.PeerTLSInfo = transport.TLSInfo{
			CertFile: c.Cert, KeyFile: c.Key, TrustedCAFile: c.CA, CRLFile: c.Revoked, ClientCertAuth: true, Logger: zap.NewNop(),
		}
		conf.ClientTLSInfo = conf.PeerTLSInfo
	}
	var members []string
	for _, name := range slices.Sorted(maps.Keys(c.Members)) {
		members = append(members, name+"="+scheme+"://"+c.Members[name])
	}
	conf.InitialCluster = strings.Join(members, ",")
	for _, u := range []struct {
		addr              string
		listen, advertise *[]url.URL
	}{
		{c.Peer, &conf.ListenPeerUrls, &conf.AdvertisePeerUrls},
		{c.Client, &conf.ListenClientUrls, &conf.AdvertiseClientUrls},
	} {
		_, port, err := net.SplitHostPort(u.addr)
		if err != nil {
			return nil, fmt.Errorf("etcd's address: %w", err)
		}
		*u.listen = []url.URL{{Scheme: scheme, Host: net.JoinHostPort(c.Listen, port)}}
		*u.advertise = []url.URL{{Scheme: scheme, Host: u.addr}}
	}
	conf.QuotaBackendBytes = mostBytes
	conf.MaxLearners = mostLearners
	conf.AutoCompactionMode, conf.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	conf.CorruptCheckTime = corruptCheck
	if err := conf.ServerFeatureGate.(interface{ Set(string) error }).Set("InitialCorruptCheck=true"); err != nil {
		return nil, err
	}
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(c.logger())
	return conf, nil
}

func (c ServerConfig) logger() *zap.Logger {
	if c.Log == nil {
		return zap.NewNop()
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(zapcore.AddSync(c.Log)), zap.WarnLevel))
}

// Failed gives the error that has ended the member by itself.
func (s *Server) Failed() <-chan error { return s.etcd.Err() }

// Close stops the member; its data stays.
func (s *Server) Close() { s.stop.Do(s.etcd.Close) }

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
	call, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := c.etcd.MemberList(call)
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
