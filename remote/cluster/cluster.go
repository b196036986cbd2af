// Package cluster is what the nodes of a cluster agree upon: its settings, its
// members and who may become one. All of it is decided in the register, by
// compare-and-swap; the package knows neither the register's engine nor how
// nodes talk to each other.
//
// Keys of the register, each with a JSON document:
//
//	config         Config: the cluster's name, ID and defaults
//	nodes/NAME     Node: written when it joins and by administrators
//	alive/NAME     Alive: under a lease that the node keeps up
//	down/NAME      Down: since when it is not alive, as the first voter to see it has written
//	joins/HASH     Invitation: a token that one node may join with
//	domains/NAME   Domain: volumes that share blocks
//	volumes/NAME   Volume: who writes it, in which epoch, and who has snapshots of it
//	repairs/NAME   Repair: of a volume that lacks a copy, as the controller has seen it
//	revoked/SERIAL Revocation: the certificate of a node that was removed
package cluster

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/register"
)

var (
	// ErrExists: the cluster has been made already.
	ErrExists = errors.New("there is a cluster already")
	// ErrNoCluster: the register has no cluster in it.
	ErrNoCluster = errors.New("the register holds no cluster")
	// ErrToken: the token is wrong, was used, or has expired.
	ErrToken = errors.New("the join token is not valid")
	// ErrNodeExists: another node has the name or the address.
	ErrNodeExists = errors.New("the cluster has a node of that name or address")
	// ErrNoNode: there is no node of that name.
	ErrNoNode = errors.New("the cluster has no such node")
	// ErrName: a name that a node or a cluster cannot have.
	ErrName = errors.New("not a name: give up to 63 letters, digits and hyphens, as of a host")
)

// Config is what holds for the whole cluster.
type Config struct {
	Name       string    `json:"name"`
	ID         string    `json:"id"`         // 32 hex digits
	Generation string    `json:"generation"` // new whenever the register was restored from a copy
	Created    time.Time `json:"created"`
	Rebuilds   int64     `json:"rebuilds"`       // how often the register was made again; its revisions begin anew
	Patience   int64     `json:"repair_after_s"` // seconds that a node is down before its copies are made anew; 0: DefaultPatience
}

// DefaultPatience is how long a node may be down where nothing else was decided: a restart takes
// less, and a copy that is made for one is made in vain.
const DefaultPatience = 10 * time.Minute

// RepairAfter is how long a node may be down before its copies are made anew.
func (c Config) RepairAfter() time.Duration {
	if c.Patience <= 0 {
		return DefaultPatience
	}
	return time.Duration(c.Patience) * time.Second
}

// A Role is what a node does.
type Role string

const (
	RoleVoter Role = "voter" // a member of the register's quorum
	RoleData  Role = "data"  // holds copies of volumes
)

// A State is what administrators have decided about a node.
type State string

const (
	StateIn       State = "in"
	StateDraining State = "draining" // gets no new copies, and gives up its own
)

// A Node is a machine of the cluster.
type Node struct {
	Name        string    `json:"name"`
	ID          string    `json:"id"`       // 32 hex digits; another one after it was set up anew
	Zone        string    `json:"zone"`     // what fails together: a rack, a room; may be empty
	Capacity    int64     `json:"capacity"` // bytes; 0: what its disk has
	Roles       []Role    `json:"roles"`
	State       State     `json:"state"`
	Address     string    `json:"address"`     // host:port of its agent
	Peer        string    `json:"peer"`        // host:port of its etcd for members; empty: it has none
	Client      string    `json:"client"`      // host:port of its etcd for clients; empty: it has none
	Certificate string    `json:"certificate"` // SHA-256, 64 hex digits
	Serial      string    `json:"serial"`      // of the certificate, in hex; empty: of a node that an older program made
	Token       string    `json:"token"`       // hash of the token that it joined with; empty: the first node
	Joined      time.Time `json:"joined"`
}

// Has tells whether the node has the role.
func (n Node) Has(r Role) bool { return slices.Contains(n.Roles, r) }

// Alive is what a running node says of itself.
type Alive struct {
	Boot    string    `json:"boot"` // the kernel's boot ID: another one after a restart of the machine
	Version string    `json:"version"`
	Since   time.Time `json:"since"` // when its agent started, by its own clock
}

// Down is when a node was first seen not to be alive.
type Down struct {
	Since time.Time `json:"since"` // by the clock of the voter that saw it
}

// An Invitation is the record of a join token, under its hash.
type Invitation struct {
	Expires time.Time `json:"expires"`
}

// A Revocation is the record of a certificate that counts no more, under its serial number.
type Revocation struct {
	Node string    `json:"node"`
	Time time.Time `json:"time"` // by the clock of the node that has removed it
}

const (
	configKey  = "config"
	nodeKeys   = "nodes/"
	aliveKeys  = "alive/"
	downKeys   = "down/"
	inviteKeys = "joins/"
	revokeKeys = "revoked/"
)

// A Cluster reads and changes what is agreed upon.
type Cluster struct {
	Register register.Register
}

// NewID returns 32 random hex digits.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

var validName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// CheckName reports what cannot be a node's or a cluster's name: ErrName.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	return nil
}

// Create makes the cluster with its first node: ErrExists, unless it is the very
// one, as after an answer that was lost.
func (c *Cluster) Create(ctx context.Context, conf Config, first Node) error {
	for _, name := range []string{conf.Name, first.Name} {
		if err := CheckName(name); err != nil {
			return err
		}
	}
	_, err := c.Register.Commit(ctx, register.Txn{
		If:  []register.Condition{{Key: configKey}, {Key: nodeKeys + first.Name}},
		Put: []register.Entry{entry(configKey, conf), entry(nodeKeys+first.Name, first)},
	})
	if !errors.Is(err, register.ErrConflict) {
		return err
	}
	if there, err := c.Config(ctx); err != nil || there.ID == conf.ID {
		return err
	}
	return ErrExists
}

// Config returns the cluster's: ErrNoCluster.
func (c *Cluster) Config(ctx context.Context) (Config, error) {
	var conf Config
	err := c.get(ctx, configKey, &conf)
	if errors.Is(err, register.ErrNotFound) {
		return Config{}, ErrNoCluster
	}
	return conf, err
}

// Node returns the one of that name: ErrNoNode.
func (c *Cluster) Node(ctx context.Context, name string) (Node, error) {
	var n Node
	err := c.get(ctx, nodeKeys+name, &n)
	if errors.Is(err, register.ErrNotFound) {
		return Node{}, fmt.Errorf("%q: %w", name, ErrNoNode)
	}
	return n, err
}

// Nodes returns all, by name.
func (c *Cluster) Nodes(ctx context.Context) ([]Node, error) {
	return listAs[Node](ctx, c.Register, nodeKeys)
}

// A Membership is who is a node, and who of them is up. Its parts were read one after the other.
type Membership struct {
	Revision int64                 // of the register, when the nodes were read
	Nodes    []Node                // by name
	Alive    map[string]Alive      // what those that are up say of themselves, by name
	Down     map[string]Down       // those that were seen not to be, by name
	Revoked  map[string]Revocation // certificates, by serial number
}

// Membership reads it.
func (c *Cluster) Membership(ctx context.Context) (m Membership, err error) {
	if m.Nodes, m.Revision, err = listWith[Node](ctx, c.Register, nodeKeys); err != nil {
		return m, err
	}
	if m.Alive, err = mapOf[Alive](ctx, c.Register, aliveKeys); err != nil {
		return m, err
	}
	if m.Down, err = mapOf[Down](ctx, c.Register, downKeys); err != nil {
		return m, err
	}
	m.Revoked, err = mapOf[Revocation](ctx, c.Register, revokeKeys)
	return m, err
}

// NoteDown writes down which of the nodes are not alive, and forgets those that are
// again. Several may do so at the same time: the first to see it counts.
func (c *Cluster) NoteDown(ctx context.Context, m Membership, now time.Time) error {
	for _, n := range m.Nodes {
		_, up := m.Alive[n.Name]
		_, noted := m.Down[n.Name]
		var t register.Txn
		switch {
		case up && noted:
			t.Delete = []string{downKeys + n.Name}
		case !up && !noted:
			// It may have come up or have been noted since they were read.
			t.If = []register.Condition{{Key: aliveKeys + n.Name}, {Key: downKeys + n.Name}}
			t.Put = []register.Entry{entry(downKeys+n.Name, Down{Since: now.UTC()})}
		default:
			continue
		}
		if _, err := c.Register.Commit(ctx, t); err != nil && !errors.Is(err, register.ErrConflict) {
			return err
		}
	}
	return nil
}

// Announce says under the lease that the node is up.
func Announce(ctx context.Context, lease register.Lease, name string, a Alive) error {
	e := entry(aliveKeys+name, a)
	return lease.Put(ctx, e.Key, e.Value)
}

// HashSecret returns what the register keeps of a token's secret.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte("quarxfs join " + secret))
	return hex.EncodeToString(sum[:])
}

// Invite lets one node join with the secret until it expires.
func (c *Cluster) Invite(ctx context.Context, secret string, expires time.Time) error {
	return again(ctx, func(ctx context.Context) error {
		_, err := c.Register.Commit(ctx, register.Txn{
			Put: []register.Entry{entry(inviteKeys+HashSecret(secret), Invitation{Expires: expires})},
		})
		return err
	})
}

const (
	// A voter that leads and dies takes along what it was told, and the others choose another
	// within that time.
	answerTime = 2 * time.Second
	mostTries  = 3
)

// again does what is the same when it is done twice until its answer is not lost.
func again(ctx context.Context, do func(context.Context) error) (err error) {
	for range mostTries {
		try, cancel := context.WithTimeout(ctx, answerTime)
		err = do(try)
		cancel()
		// Not the caller's time is over but the try's, in a read.
		if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, register.ErrUncertain) && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", register.ErrUncertain, err)
		}
		if !errors.Is(err, register.ErrUncertain) || ctx.Err() != nil {
			break
		}
	}
	return err
}

// change is a compare-and-swap of what is decided under a key, and none its error where nothing is.
// What it was is read again until nobody comes between, and when the answer was lost: fn is called
// for what it has changed already, too.
func change[T any](ctx context.Context, r register.Register, key string, none error, fn func(*T) error) (changed T, err error) {
	err = again(ctx, func(ctx context.Context) error {
		_, err := register.Update(ctx, r, key, func(e register.Entry) ([]byte, error) {
			if e.Revision == 0 {
				return nil, none
			}
			var v T // each time anew: JSON leaves what it does not name as it was
			if err := decode(e, &v); err != nil {
				return nil, err
			}
			if err := fn(&v); err != nil {
				return nil, err
			}
			changed = v
			return entry(key, v).Value, nil
		})
		return err
	})
	return changed, err
}

// askAgain is how long a node that was admitted may ask for it again.
const askAgain = 10 * time.Minute

// Admit makes n a node, and the secret useless for any other. The same node may
// ask again with the same secret for ten minutes, since the answer may have been
// lost; its new certificate then replaces the other. ErrToken, ErrNodeExists, ErrName.
func (c *Cluster) Admit(ctx context.Context, secret string, n Node, now time.Time) (admitted Node, err error) {
	if err := CheckName(n.Name); err != nil {
		return Node{}, err
	}
	n.Token = HashSecret(secret)
	err = again(ctx, func(ctx context.Context) (err error) {
		admitted, err = c.admit(ctx, n, now)
		return err
	})
	return admitted, err
}

// admit is Admit once.
func (c *Cluster) admit(ctx context.Context, n Node, now time.Time) (Node, error) {
	there, err := c.Node(ctx, n.Name)
	switch {
	case err == nil && there.Token == n.Token && there.ID == n.ID && now.Sub(there.Joined).Abs() < askAgain:
		return n, c.replaceCertificate(ctx, n)
	case err == nil:
		// Whoever has no token learns nothing of who is a node.
		if _, err := c.invitation(ctx, n.Token, now); err != nil {
			return Node{}, err
		}
		return Node{}, fmt.Errorf("%q: %w", n.Name, ErrNodeExists)
	case !errors.Is(err, ErrNoNode):
		return Node{}, err
	}
	revision, err := c.invitation(ctx, n.Token, now)
	if err == nil {
		err = c.addressIsFree(ctx, n)
	}
	if err != nil {
		return Node{}, err
	}
	_, err = c.Register.Commit(ctx, register.Txn{
		If:     []register.Condition{{Key: inviteKeys + n.Token, Revision: revision}, {Key: nodeKeys + n.Name}},
		Put:    []register.Entry{entry(nodeKeys+n.Name, n)},
		Delete: []string{inviteKeys + n.Token},
	})
	if errors.Is(err, register.ErrConflict) { // another node was quicker, with the token or the name
		return c.admit(ctx, n, now)
	}
	return n, err
}

// addressIsFree reports ErrNodeExists where another node has n's address: its member of
// etcd would take the place of the other's.
func (c *Cluster) addressIsFree(ctx context.Context, n Node) error {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, other := range nodes {
		if other.Peer != "" && other.Peer == n.Peer {
			return fmt.Errorf("%q has that address: %w", other.Name, ErrNodeExists)
		}
	}
	return nil
}

func (c *Cluster) replaceCertificate(ctx context.Context, n Node) error {
	// ErrToken: it was removed meanwhile, and may have been made anew.
	_, err := change(ctx, c.Register, nodeKeys+n.Name, ErrToken, func(there *Node) error {
		if there.ID != n.ID || there.Token != n.Token {
			return ErrToken
		}
		there.Certificate, there.Serial = n.Certificate, n.Serial
		return nil
	})
	return err
}

// invitation returns the revision of one that is valid.
func (c *Cluster) invitation(ctx context.Context, hash string, now time.Time) (int64, error) {
	e, err := c.Register.Get(ctx, inviteKeys+hash)
	if errors.Is(err, register.ErrNotFound) {
		return 0, fmt.Errorf("%w: nobody made it, or a node has joined with it", ErrToken)
	}
	if err != nil {
		return 0, err
	}
	var i Invitation
	if err := decode(e, &i); err != nil {
		return 0, err
	}
	if now.After(i.Expires) {
		return 0, fmt.Errorf("%w: it has expired at %s", ErrToken, i.Expires.Format(time.RFC3339))
	}
	return e.Revision, nil
}

// DropExpired removes tokens that nobody can use any more.
func (c *Cluster) DropExpired(ctx context.Context, now time.Time) error {
	entries, _, err := c.Register.List(ctx, inviteKeys)
	if err != nil {
		return err
	}
	for _, e := range entries {
		var i Invitation
		if err := decode(e, &i); err != nil {
			return err
		}
		// By its revision: a node may be joining with it now, and then it is gone anyway.
		if now.After(i.Expires) {
			_, err := c.Register.Commit(ctx, register.Txn{
				If:     []register.Condition{{Key: e.Key, Revision: e.Revision}},
				Delete: []string{e.Key},
			})
			if err != nil && !errors.Is(err, register.ErrConflict) {
				return err
			}
		}
	}
	return nil
}

// Remove takes the node out of the cluster: ErrNoNode. Its certificate counts no more.
func (c *Cluster) Remove(ctx context.Context, name string, now time.Time) error {
	var asked string // the ID of the node whose removal was asked for, perhaps by a try without an answer
	return again(ctx, func(ctx context.Context) error {
		for {
			e, err := c.Register.Get(ctx, nodeKeys+name)
			if errors.Is(err, register.ErrNotFound) && asked != "" {
				return nil
			}
			if errors.Is(err, register.ErrNotFound) {
				return fmt.Errorf("%q: %w", name, ErrNoNode)
			}
			if err != nil {
				return err
			}
			var n Node
			if err := decode(e, &n); err != nil {
				return err
			}
			if asked != "" && n.ID != asked {
				return nil // it is gone, and another one has joined under the name
			}
			asked = n.ID
			t := register.Txn{
				If:     []register.Condition{{Key: e.Key, Revision: e.Revision}},
				Delete: []string{e.Key, aliveKeys + name, downKeys + name},
			}
			// With the removal, not after it: a broken-off one must not leave the certificate good.
			if n.Serial != "" {
				t.Put = []register.Entry{entry(revokeKeys+n.Serial, Revocation{Node: name, Time: now.UTC()})}
			}
			_, err = c.Register.Commit(ctx, t)
			if !errors.Is(err, register.ErrConflict) {
				return err
			}
		}
	})
}

func (c *Cluster) get(ctx context.Context, key string, to any) error {
	e, err := c.Register.Get(ctx, key)
	if err != nil {
		return err
	}
	return decode(e, to)
}

func listAs[T any](ctx context.Context, r register.Register, prefix string) ([]T, error) {
	values, _, err := listWith[T](ctx, r, prefix)
	return values, err
}

// listWith is listAs with the register's revision then.
func listWith[T any](ctx context.Context, r register.Register, prefix string) ([]T, int64, error) {
	entries, revision, err := r.List(ctx, prefix)
	if err != nil {
		return nil, 0, err
	}
	values := make([]T, len(entries))
	for i, e := range entries {
		if err := decode(e, &values[i]); err != nil {
			return nil, 0, err
		}
	}
	return values, revision, nil
}

// mapOf is listAs by what is behind the prefix.
func mapOf[T any](ctx context.Context, r register.Register, prefix string) (map[string]T, error) {
	entries, _, err := r.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	values := make(map[string]T)
	for _, e := range entries {
		var v T
		if err := decode(e, &v); err != nil {
			return nil, err
		}
		values[e.Key[len(prefix):]] = v
	}
	return values, nil
}

func entry(key string, value any) register.Entry {
	b, err := json.Marshal(value)
	if err != nil {
		panic(err) // none of the types above can fail
	}
	return register.Entry{Key: key, Value: b}
}

func decode(e register.Entry, to any) error {
	if err := json.Unmarshal(e.Value, to); err != nil {
		return fmt.Errorf("the register's %s is damaged: %w", e.Key, err)
	}
	return nil
}
