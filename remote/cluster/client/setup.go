package client

import (
	"fmt"
	"net"
	"strconv"

	"github.com/quarxtor/quarxfs/remote/cluster"
)

// SetUp describes a node that is to be made. It travels to quarxfs-node as JSON.
type SetUp struct {
	Cluster  string `json:"cluster"` // its name, for a new cluster
	Token    string `json:"token"`   // of the cluster that it joins, instead
	Name     string `json:"name"`
	Zone     string `json:"zone"`
	Capacity int64  `json:"capacity"` // bytes; 0: what its disk has
	Host     string `json:"host"`     // at which other nodes reach this one
	Port     int    `json:"port"`     // of the agent; the two behind it are etcd's
	Listen   string `json:"listen"`   // host that it listens on; empty: Host
	Witness  bool   `json:"witness"`  // it votes, and holds no copies
}

// Validate reports what cannot be: ErrRequest, cluster.ErrName.
func (s SetUp) Validate() error {
	if err := cluster.CheckName(s.Name); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	if s.Port < 1 || s.Port > 65533 {
		return fmt.Errorf("%w: port %d: give one from 1 to 65533, as the next two are used, too", ErrRequest, s.Port)
	}
	if s.Host == "" {
		return fmt.Errorf("%w: no address at which other nodes reach this one: give --address", ErrRequest)
	}
	return nil
}

// Addr is that of the agent (0), and of its etcd for members (1) and for clients (2).
func (s SetUp) Addr(i int) string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port+i)) }
