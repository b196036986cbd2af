// Package client talks to a node's agent: what travels, and how to ask. It is all
// of the cluster that quarxfs itself is linked with.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
	"github.com/quarxtor/quarxfs/remote/cluster/pki"
	"github.com/quarxtor/quarxfs/store/chunk"
)

const (
	// SocketName is the agent's socket in its node's directory.
	SocketName = "agent.sock"
	// SettingsName is the file that makes a directory a node's.
	SettingsName = "node.json"
	// DefaultDir is a node's directory.
	DefaultDir = "/var/lib/quarxfs/node"
	// DefaultPort is the agent's; etcd has the next two.
	DefaultPort = 7441

	// MostBytes bounds what is read of a request, and of an answer to anybody.
	MostBytes = 1 << 20
	// mostAnswer bounds an answer of an agent: 10,000 volumes are some megabytes.
	mostAnswer = 64 << 20
	callTime   = 30 * time.Second
)

// The paths of the agent's API.
const (
	PathJoin     = "/v1/cluster/join"     // POST JoinRequest -> JoinAnswer; needs no certificate
	PathTokens   = "/v1/cluster/tokens"   // POST NewToken -> Token
	PathNodes    = "/v1/cluster/nodes"    // GET -> View; DELETE of one below it
	PathStatus   = "/v1/cluster/status"   // GET -> health.Status
	PathAnswer   = "/v1/cluster/answer"   // GET -> health.Answer, of this node alone
	PathSelf     = "/v1/cluster/self"     // GET -> Self
	PathDomains  = "/v1/cluster/domains"  // POST DomainRequest -> cluster.Domain
	PathVolumes  = "/v1/cluster/volumes"  // POST cluster.Volume -> the same; see the calls for what is below it
	PathHomes    = "/v1/cluster/homes"    // DELETE of one below it
	PathFence    = "/v1/cluster/fence"    // POST FenceRequest
	PathFetch    = "/v1/cluster/fetch"    // POST FetchRequest
	PathDiscard  = "/v1/cluster/discard"  // POST DiscardRequest
	PathCopy     = "/v1/cluster/copy"     // GET -> Knowledge, of this node
	PathRebuild  = "/v1/cluster/rebuild"  // POST RebuildRequest -> Rebuild
	PathVaults   = "/v1/cluster/vaults"   // below it the API of syncs, for one volume
	PathMirrors  = "/v1/cluster/mirrors"  // GET, POST mirror.Record -> MirrorView, of one below it; nodes: a writer's stream
	PathBalance  = "/v1/cluster/balance"  // POST BalanceRequest -> Balance
	PathBlast    = "/v1/cluster/blast"    // POST BlastRequest -> Blast
	PathSettings = "/v1/cluster/settings" // GET, POST ClusterSettings -> the same
	PathStop     = "/v1/cluster/stop"     // POST
	PathPage     = "/cluster/"            // GET: for people
)

// MostSkew is how far the clock of a new node may be off.
const MostSkew = time.Minute

// Protocol is the version of what travels between agents.
const Protocol = 1

// A JoinRequest asks to become a node.
type JoinRequest struct {
	Protocol int          `json:"protocol"`
	Secret   string       `json:"secret"`
	Node     cluster.Node `json:"node"` // Peer and Client: where its etcd would be, if it is to vote
	Witness  bool         `json:"witness"`
	Request  []byte       `json:"request"` // to sign its certificate, in DER
	Time     time.Time    `json:"time"`    // of its own clock
}

// A JoinAnswer has all that the new node needs.
type JoinAnswer struct {
	Cluster     cluster.Config `json:"cluster"`
	Node        cluster.Node   `json:"node"`
	Certificate []byte         `json:"certificate"` // PEM
	Authority   []byte         `json:"authority"`   // PEM
	Signer      []byte         `json:"signer"`      // PEM; only for a voter
	Clients     []string       `json:"clients"`     // host:port of etcd
}

// NewToken says how long a join token counts.
type NewToken struct {
	Lasts time.Duration `json:"lasts_ns"`
}

// A Token lets one node join.
type Token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// A View is the cluster's nodes, as of a moment.
type View struct {
	AsOf    time.Time      `json:"as_of"`
	Cluster cluster.Config `json:"cluster"`
	Nodes   []NodeView     `json:"nodes"`
}

// NodeView is a node, and what is known of it now.
type NodeView struct {
	cluster.Node
	Up    bool           `json:"up"`
	Alive *cluster.Alive `json:"alive"` // null: not up
	Votes bool           `json:"votes"` // it is in the quorum now; a voter may be waiting for a third one
}

// Self is what an agent knows without asking anybody.
type Self struct {
	Cluster    string `json:"cluster"`
	ID         string `json:"id"`
	Node       string `json:"node"`
	PID        int    `json:"pid"`
	Address    string `json:"address"`
	Generation string `json:"generation"` // of the register that it follows
	Ready      bool   `json:"ready"`      // it reaches the register
	Why        string `json:"why"`        // why not
}

// A DomainRequest asks for a domain; without a chunker for one that is there.
type DomainRequest struct {
	Name    string        `json:"name"`
	Chunker *chunk.Config `json:"chunker"`
}

// A VaultsRequest changes who has snapshots of a volume.
type VaultsRequest struct {
	Add    []string `json:"add"`
	Remove []string `json:"remove"`
	Copies int      `json:"copies"` // that are wanted, with the home's own; 0: as the vaults say
}

// A FenceRequest tells a vault of a later epoch.
type FenceRequest struct {
	Volume cluster.Volume `json:"volume"`
	Domain cluster.Domain `json:"domain"`
}

// A TakeoverRequest asks to make the node the home of a volume.
type TakeoverRequest struct {
	Store    string `json:"store"`    // its directory there
	Snapshot string `json:"snapshot"` // that is known to be the newest; empty: ask which one is
	Force    bool   `json:"force"`    // although the home is up, or vaults do not answer
}

// A Takeover says what it begins with.
type Takeover struct {
	Volume cluster.Volume `json:"volume"`
	Domain cluster.Domain `json:"domain"`
	From   cluster.Origin `json:"from"` // the newest snapshot; what was written after it is not in the volume
	Done   bool           `json:"done"` // the node is the home now; false: nothing was changed
}

// A MirrorView is what who writes a mirrored volume needs to know.
type MirrorView struct {
	Volume     cluster.Volume    `json:"volume"`
	Record     mirror.Record     `json:"record"`
	Stale      bool              `json:"stale"`      // nothing was swapped: the record was another one
	Addresses  map[string]string `json:"addresses"`  // host:port of the mirrors' agents, by node
	Generation string            `json:"generation"` // of the register
}

// MirrorProtocol is what a writer's stream to a mirror is called.
const MirrorProtocol = "quarxfs-mirror/1"

// MirrorPath is where a node takes the stream of a volume's writer.
func MirrorPath(generation, id string) string { return PathMirrors + "/" + generation + "/" + id }

// Mirror returns what the register has of a mirrored volume, by its ID: cluster.ErrNoVolume.
func (a *Agent) Mirror(ctx context.Context, id string) (MirrorView, error) {
	var v MirrorView
	return v, a.call(ctx, http.MethodGet, PathMirrors+"/"+id, nil, &v)
}

// SwapMirror replaces the record of a volume that the agent's node writes: cluster.ErrFenced.
func (a *Agent) SwapMirror(ctx context.Context, id string, next mirror.Record) (MirrorView, error) {
	var v MirrorView
	return v, a.call(ctx, http.MethodPost, PathMirrors+"/"+id, next, &v)
}

// An Agent is where to ask.
type Agent struct {
	http *http.Client
	base string
	dir  string // of a node of this machine; empty: of another
}

// Close gives back the connections that wait for further calls.
func (a *Agent) Close() { a.http.CloseIdleConnections() }

// The files of a node's directory by which others know it.
const (
	AuthorityName = "ca.pem"
	CertName      = "node.pem"
	KeyName       = "node.key.pem"
)

// Identity reads who the node of a directory is.
func Identity(dir string) (*pki.Identity, error) {
	var parts [3][]byte
	for i, name := range []string{CertName, KeyName, AuthorityName} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		parts[i] = b
	}
	return pki.LoadIdentity(parts[0], parts[1], parts[2])
}

// CheckSetUp reports a directory that is no node's: ErrNotSetUp.
func CheckSetUp(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, SettingsName)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w: quarxfs cluster init or join makes it one", dir, ErrNotSetUp)
	}
	return nil
}

// Local is the agent of the node whose directory is dir.
func Local(dir string) *Agent {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, SocketName))
	}
	return &Agent{http: &http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: callTime}, base: "http://agent", dir: dir}
}

// Remote is the agent at host:port.
func Remote(addr string, conf *tls.Config) *Agent {
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Agent{
		http: &http.Client{Transport: &http.Transport{TLSClientConfig: conf}, Timeout: callTime, CheckRedirect: refuse},
		base: "https://" + addr,
	}
}

// Join asks for a place in the cluster: ErrToken, ErrNodeExists, ErrName, ErrClock, ErrVersion.
func (a *Agent) Join(ctx context.Context, r JoinRequest) (JoinAnswer, error) {
	var answer JoinAnswer
	return answer, a.call(ctx, http.MethodPost, PathJoin, r, &answer)
}

// NewToken makes a token that lasts.
func (a *Agent) NewToken(ctx context.Context, lasts time.Duration) (Token, error) {
	var t Token
	return t, a.call(ctx, http.MethodPost, PathTokens, NewToken{Lasts: lasts}, &t)
}

// Nodes returns the cluster's nodes.
func (a *Agent) Nodes(ctx context.Context) (View, error) {
	var v View
	return v, a.call(ctx, http.MethodGet, PathNodes, nil, &v)
}

// Remove takes a node out of the cluster: ErrNoNode, ErrLastVoter.
func (a *Agent) Remove(ctx context.Context, name string) error {
	return a.call(ctx, http.MethodDelete, PathNodes+"/"+url.PathEscape(name), nil, nil)
}

// Status returns what is known of the cluster, and what is wrong with it.
func (a *Agent) Status(ctx context.Context) (health.Status, error) {
	var s health.Status
	return s, a.call(ctx, http.MethodGet, PathStatus, nil, &s)
}

// Answer asks the agent for what only its node can say.
func (a *Agent) Answer(ctx context.Context) (health.Answer, error) {
	var said health.Answer
	return said, a.call(ctx, http.MethodGet, PathAnswer, nil, &said)
}

// AgreeOnDomain returns a domain, and makes it of the chunker if there is none: cluster.ErrDomain;
// without a chunker cluster.ErrNoDomain.
func (a *Agent) AgreeOnDomain(ctx context.Context, r DomainRequest) (cluster.Domain, error) {
	var d cluster.Domain
	return d, a.call(ctx, http.MethodPost, PathDomains, r, &d)
}

// CreateVolume makes a volume whose home is the agent's node, and returns it as it is.
func (a *Agent) CreateVolume(ctx context.Context, v cluster.Volume) (cluster.Volume, error) {
	var made cluster.Volume
	return made, a.call(ctx, http.MethodPost, PathVolumes, v, &made)
}

// TakeOver makes the agent's node the home of a volume, if the request confirms the snapshot that
// it begins with: ErrHomeUp, ErrNoVault, cluster.ErrNoVolume, cluster.ErrFenced.
func (a *Agent) TakeOver(ctx context.Context, name string, r TakeoverRequest) (Takeover, error) {
	var t Takeover
	return t, a.call(ctx, http.MethodPost, volumePath(name)+"/takeover", r, &t)
}

// Filled says that the agent's node has all of the volume that it has taken over.
func (a *Agent) Filled(ctx context.Context, name string) error {
	return a.call(ctx, http.MethodPost, volumePath(name)+"/filled", nil, nil)
}

// SetVaults changes who has snapshots of a volume.
func (a *Agent) SetVaults(ctx context.Context, name string, r VaultsRequest) (cluster.Volume, error) {
	var v cluster.Volume
	return v, a.call(ctx, http.MethodPost, volumePath(name)+"/vaults", r, &v)
}

// ForgetHome has the agent's node forget a store that was the home of a volume; its files stay.
func (a *Agent) ForgetHome(ctx context.Context, volume string) error {
	return a.call(ctx, http.MethodDelete, PathHomes+"/"+url.PathEscape(volume), nil, nil)
}

// Fence tells the agent's node of a later epoch of a volume that it is a vault of:
// cluster.ErrFenced.
func (a *Agent) Fence(ctx context.Context, r FenceRequest) error {
	return a.call(ctx, http.MethodPost, PathFence, r, nil)
}

func volumePath(name string) string { return PathVolumes + "/" + url.PathEscape(name) }

// VaultPath is where the agent of a node leads to a volume at another one.
func VaultPath(node, id string, epoch int64) string {
	return fmt.Sprintf("%s/%s/%s/%d", PathVaults, node, id, epoch)
}

// Vault is a volume's snapshots at a node, as seen in an epoch.
func (a *Agent) Vault(node, id string, epoch int64) *remote.Client {
	return remote.NewClientOver(a.base+VaultPath(node, id, epoch), a.http.Transport)
}

// Self asks the agent what it is.
func (a *Agent) Self(ctx context.Context) (Self, error) {
	var s Self
	return s, a.call(ctx, http.MethodGet, PathSelf, nil, &s)
}

// Stop ends the agent; the node stays one.
func (a *Agent) Stop(ctx context.Context) error {
	return a.call(ctx, http.MethodPost, PathStop, nil, nil)
}

// noAnswer says why nobody answers, without the address that http has made up for a socket.
func (a *Agent) noAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if a.dir == "" {
		return fmt.Errorf("%w: %w", ErrNoAgent, err)
	}
	if err := CheckSetUp(a.dir); err != nil {
		return err
	}
	return fmt.Errorf("%w: %w: start it with quarxfs cluster start", ErrNoAgent, err)
}

func (a *Agent) call(ctx context.Context, method, path string, body, to any) error {
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, send)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// Its time limit is that of the whole call, with the answer's body.
	r, err := a.http.Do(req)
	if err != nil {
		return a.noAnswer(ctx, err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(io.LimitReader(r.Body, mostAnswer))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoAgent, err)
	}
	if r.StatusCode >= http.StatusBadRequest {
		return problem(r, b)
	}
	if to == nil {
		return nil
	}
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("%w: what answers is no agent: %w", ErrVersion, err)
	}
	return nil
}
