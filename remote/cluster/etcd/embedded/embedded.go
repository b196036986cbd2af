// Package embedded runs a member of the cluster's etcd inside this process. Only
// quarxfs-node is linked with it: etcd's server is larger than all of QuarXFS.
package embedded

import (
	"context"
	"fmt"
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

	"github.com/quarxtor/quarxfs/remote/cluster/etcd"
)

const (
	// The register holds a few megabytes: decisions, never measurements.
	mostBytes = 256 << 20
	// Two wait for each other where the first three nodes come one by one.
	mostLearners = 2
	// Rot in one member's database is looked for this often.
	corruptCheck = 12 * time.Hour
)

type server struct {
	etcd *embed.Etcd
	stop sync.Once // embed's Close panics the second time
}

// Start is an etcd.Start.
func Start(ctx context.Context, c etcd.ServerConfig) (etcd.Server, error) {
	conf, err := configOf(c)
	if err != nil {
		return nil, err
	}
	e, err := embed.StartEtcd(conf)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", c.Dir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
		return &server{etcd: e}, nil
	case err = <-e.Err():
	case <-ctx.Done():
		err = ctx.Err()
		// Close alone would wait for ever: it asks for servers that begin when there is a quorum.
		e.Server.Stop()
	}
	e.Close()
	return nil, fmt.Errorf("start etcd in %s: %w", c.Dir, err)
}

func configOf(c etcd.ServerConfig) (*embed.Config, error) {
	conf := embed.NewConfig()
	conf.Name, conf.Dir = c.Name, c.Dir
	conf.InitialClusterToken = c.Token
	conf.ClusterState = embed.ClusterStateFlagNew
	if c.Join {
		conf.ClusterState = embed.ClusterStateFlagExisting
	}
	scheme := etcd.Scheme(c.Cert != "")
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
		// It may listen on all addresses, while others are told one that reaches it.
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
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(loggerOf(c))
	return conf, nil
}

func loggerOf(c etcd.ServerConfig) *zap.Logger {
	if c.Log == nil {
		return zap.NewNop()
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(zapcore.AddSync(c.Log)), zap.WarnLevel))
}

func (s *server) Failed() <-chan error { return s.etcd.Err() }

func (s *server) Close() { s.stop.Do(s.etcd.Close) }
