// Package agent is the process of a node: it holds the node's certificate, runs
// its member of the register if it has one, says that the node is alive, admits
// new nodes, and answers the commands of administrators on a socket.
//
// A node's directory, which is its owner's alone:
//
//	node.json    Settings: what was said and answered when the node was set up
//	ca.pem       the cluster's authority; ca.key.pem on voters: its key
//	node.pem     the node's certificate, and node.key.pem its key
//	revoked.crl  the certificates that count no more, on voters
//	etcd/        the data of its member of the register
//	register.json the register's decisions as they were read last
//	rebuild.json what a register that is being made again is to say
//	volumes.json the stores of volumes that are, or were, written here
//	vaults/      what it keeps of other nodes' volumes
//	mirrors/     copies of volumes that others write, kept in sync, by ID
//	lock         held by the agent; agent.sock: where it answers
package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/pki"
	"github.com/quarxtor/quarxfs/store/durable"
)

const (
	authorityName = client.AuthorityName
	signerName    = "ca.key.pem"
	certName      = client.CertName
	keyName       = client.KeyName
	revokedName   = "revoked.crl"
	etcdName      = "etcd"
	vaultsName    = "vaults"
	mirrorsName   = "mirrors"
	homesName     = "volumes.json"
	copyName      = "register.json"
	rebuildName   = "rebuild.json"
	lockName      = "lock"
)

// Settings are a node's own, which it needs before it can reach the register.
type Settings struct {
	Cluster cluster.Config `json:"cluster"`
	Node    cluster.Node   `json:"node"`
	Founder bool           `json:"founder"` // it makes the cluster's register, which is not there yet
	Lost    bool           `json:"lost"`    // its member of etcd is of a register that was lost
	Clients []string       `json:"clients"` // host:port of etcd that answers it; empty: its own alone
	Listen  string         `json:"listen"`  // host that it listens on
}

// A Dir is a node's directory.
type Dir string

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

// Settings reads them: client.ErrNotSetUp.
func (d Dir) Settings() (Settings, error) {
	b, err := os.ReadFile(d.path(client.SettingsName))
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{}, fmt.Errorf("%s: %w", d, client.ErrNotSetUp)
	}
	var s Settings
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return Settings{}, fmt.Errorf("read the node's settings: %w", err)
	}
	return s, nil
}

// Found makes the first node of a new cluster in d: client.ErrSetUp. A call that was
// broken off is begun again.
func (d Dir) Found(s client.SetUp, now time.Time) error {
	return d.make(s, func(n cluster.Node, request []byte) (Settings, error) {
		conf := cluster.Config{Name: s.Cluster, ID: cluster.NewID(), Generation: cluster.NewID(), Created: now.UTC()}
		if err := cluster.CheckName(conf.Name); err != nil {
			return Settings{}, err
		}
		ca, err := pki.NewAuthority(conf.ID, now)
		if err != nil {
			return Settings{}, err
		}
		cert, err := ca.Sign(request, n.Name, now)
		if err != nil {
			return Settings{}, err
		}
		key, err := ca.Key()
		if err != nil {
			return Settings{}, err
		}
		// The first node decides alone until others join, so it votes, whatever else it is.
		n.Roles = roles(true, s.Witness)
		n.Peer, n.Client = s.Addr(1), s.Addr(2)
		err = d.keepCertificates(&n, cert, ca.Certificate(), key)
		return Settings{Cluster: conf, Node: n, Founder: true}, err
	})
}

// make writes all that a node needs, the settings last: with them it is set up.
func (d Dir) make(s client.SetUp, enter func(n cluster.Node, request []byte) (Settings, error)) error {
	if err := s.Validate(); err != nil {
		return err
	}
	if _, err := d.Settings(); !errors.Is(err, client.ErrNotSetUp) {
		if err == nil {
			err = fmt.Errorf("%s: %w", d, client.ErrSetUp)
		}
		return err
	}
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	lock, err := d.lock()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	// What an attempt that was broken off has left of a register is of a cluster that never was.
	if err := os.RemoveAll(d.path(etcdName)); err != nil {
		return err
	}
	key, request, err := pki.NewRequest(s.Name, []string{s.Host})
	if err == nil {
		err = durable.Write(d.path(keyName), key)
	}
	if err != nil {
		return err
	}
	n := cluster.Node{
		Name: s.Name, ID: cluster.NewID(), Zone: s.Zone, Capacity: s.Capacity,
		State: cluster.StateIn, Address: s.Addr(0), Joined: time.Now().UTC(),
	}
	settings, err := enter(n, request)
	if err != nil {
		return err
	}
	settings.Listen = s.Listen
	if settings.Listen == "" {
		settings.Listen = s.Host
	}
	return d.write(settings)
}

func (d Dir) write(s Settings) error {
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return durable.Write(d.path(client.SettingsName), b)
}

func roles(voter, witness bool) []cluster.Role {
	var r []cluster.Role
	if voter {
		r = append(r, cluster.RoleVoter)
	}
	if !witness {
		r = append(r, cluster.RoleData)
	}
	return r
}

// keepCertificates writes them; signer is empty for nodes that do not vote.
func (d Dir) keepCertificates(n *cluster.Node, cert, authority, signer []byte) error {
	c, err := pki.ParseCertificate(cert)
	if err != nil {
		return err
	}
	n.Certificate, n.Serial = pki.Fingerprint(c), pki.Serial(c)
	// The authority is behind the node's own, for those who know its fingerprint alone.
	chain := append(append([]byte{}, cert...), authority...)
	err = errors.Join(durable.Write(d.path(certName), chain), durable.Write(d.path(authorityName), authority))
	if len(signer) > 0 {
		err = errors.Join(err, durable.Write(d.path(signerName), signer))
	}
	return err
}

func (d Dir) identity() (*pki.Identity, error) {
	return client.Identity(string(d))
}

// signer returns the authority with its key, which voters have; nil: this is none.
func (d Dir) signer() (*pki.Authority, error) {
	parts, err := d.read(authorityName, signerName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return pki.LoadAuthority(parts[0], parts[1])
}

func (d Dir) read(names ...string) ([][]byte, error) {
	var parts [][]byte
	for _, name := range names {
		b, err := os.ReadFile(d.path(name))
		if err != nil {
			return nil, err
		}
		parts = append(parts, b)
	}
	return parts, nil
}

// lock keeps other agents and set-ups out: client.ErrRuns.
func (d Dir) lock() (*flock.Flock, error) {
	l := flock.New(d.path(lockName), flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%s: %w", d, client.ErrRuns)
	}
	return l, nil
}

// Socket is where the agent of d answers.
func (d Dir) Socket() string { return d.path(client.SocketName) }
