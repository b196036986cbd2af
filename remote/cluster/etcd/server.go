package etcd

import (
	"context"
	"io"
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
type Server interface {
	// Failed gives the error that has ended the member by itself.
	Failed() <-chan error
	// Close stops the member; its data stays. The second time it is nothing.
	Close()
}

// Start starts a member and returns when it has joined its peers and serves, which it cannot
// before a quorum of them is there: it waits until ctx ends. embedded.Start is one; what
// only asks for one is then built and tested without etcd's server.
type Start func(ctx context.Context, c ServerConfig) (Server, error)
