package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/clustertest"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd/embedded"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/cluster/place"
	"github.com/quarxtor/quarxfs/remote/cluster/register"
)

const (
	manyNodes   = 10_000
	manyVolumes = 100_000
	manyZones   = 200

	mostPlacing = 50 * time.Millisecond
	mostBlast   = 10 * time.Second
	mostEtcd    = 200_000_000 // bytes
	perTxn      = 100         // etcd takes 128 at most
)

// runA9 decides for a large cluster, in this process, and writes what it would be into an etcd.
func runA9(ctx context.Context, t *trial) error {
	for t.result.Rounds < t.rounds {
		f := t.largeFacts()
		t.placeInLarge(f)
		t.blastInLarge(f)
		t.judgeLarge(f)
		if err := t.etcdOfLarge(ctx, f); err != nil {
			return err
		}
		t.result.Rounds++
	}
	return nil
}

// largeFacts are nodes of unequal disks and volumes of unequal sizes (log-normal), placed each on
// two nodes of different zones.
func (t *trial) largeFacts() place.Facts {
	const gib = 1 << 30
	f := place.Facts{Rules: place.DefaultRules()}
	for i := range manyNodes {
		size := int64(4+t.rng.IntN(13)) << 40
		f.Nodes = append(f.Nodes, place.Node{
			Name: fmt.Sprintf("n%05d", i), Zone: fmt.Sprintf("z%03d", i%manyZones), Data: true, Disk: &place.Disk{Size: size, Free: size},
		})
	}
	for i := range manyVolumes {
		v := place.Volume{
			ID: fmt.Sprintf("%032x", i), Vaults: 1, Bytes: int64(20*gib*math.Exp(t.rng.NormFloat64())) + 1,
		}
		home := t.rng.IntN(manyNodes)
		vault := (home + 1 + t.rng.IntN(manyZones-1)) % manyNodes // in another zone
		for at, kind := range map[int]place.Kind{home: place.Writer, vault: place.Vault} {
			v.Copies = append(v.Copies, place.Copy{Node: f.Nodes[at].Name, Kind: kind, State: place.Made})
			f.Nodes[at].Disk.Free -= v.Bytes
		}
		f.Volumes = append(f.Volumes, v)
	}
	return f
}

func (t *trial) placeInLarge(f place.Facts) {
	var took []float64
	for i := range 20 {
		one := place.Volume{ID: fmt.Sprintf("%032x", manyVolumes+i), Vaults: 1, Bytes: 1 << 34, Copies: []place.Copy{
			{Node: f.Nodes[t.rng.IntN(manyNodes)].Name, Kind: place.Writer, State: place.Made},
		}}
		begun := time.Now()
		name, shared, why := place.Choose(f, one)
		took = append(took, time.Since(begun).Seconds()*1000)
		if why != "" || shared || name == "" {
			t.fail("a new volume is placed on %q, in a shared zone: %v, %s", name, shared, why)
		}
	}
	t.measured("placing a volume, ms", spread(took))
	longest := slices.Max(took)
	t.require(longest < float64(mostPlacing.Milliseconds()), "placing a volume took %.0f ms", longest)
}

func (t *trial) blastInLarge(f place.Facts) {
	begun := time.Now()
	worst := place.Worst(f, 2)
	d := place.Blast(f, worst, nil)
	took := time.Since(begun)
	t.measured("the worst two and what they lose, s", took.Seconds())
	t.require(took < mostBlast, "the worst two took %v", took)
	lost := make(map[string]bool)
	for _, l := range d.Losses {
		lost[l.Volume] = l.Fate == place.Lost
	}
	// What is lost is looked up here in another way: both copies of the volume are on the two.
	for _, v := range f.Volumes {
		both := true
		for _, c := range v.Copies {
			both = both && slices.Contains(worst, c.Node)
		}
		if both != lost[v.ID] {
			t.fail("%s is lost with %v: %v, and the forecast says %v", v.ID, worst, both, lost[v.ID])
			return
		}
	}
}

// judgeLarge is no part of the acceptance: how long a status of so many nodes takes to judge.
func (t *trial) judgeLarge(f place.Facts) {
	facts := health.Facts{AsOf: time.Now()}
	for i := range f.Nodes {
		facts.Nodes = append(facts.Nodes, health.NodeFacts{Node: t.nodeOf(f, i), Up: true})
	}
	for i := range f.Volumes {
		facts.Volumes = append(facts.Volumes, t.volumeOf(f, i))
	}
	begun := time.Now()
	health.Judge(facts)
	t.measured("judging a status, s", time.Since(begun).Seconds())
}

// etcdOfLarge writes the register of such a cluster into a real etcd.
func (t *trial) etcdOfLarge(ctx context.Context, f place.Facts) (err error) {
	dir, err := os.MkdirTemp(t.work, "clustertest-etcd-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	port, err := clustertest.FreePorts(2)
	if err != nil {
		return err
	}
	peer := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	conf := etcd.ServerConfig{
		Name: "a", Dir: filepath.Join(dir, "etcd"), Listen: "127.0.0.1", Peer: peer,
		Client: net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1)), Members: map[string]string{"a": peer}, Token: "large",
	}
	server, err := embedded.Start(ctx, conf)
	if err != nil {
		return err
	}
	defer server.Close()
	c, err := etcd.Dial(etcd.ClientConfig{Endpoints: []string{conf.Client}, Prefix: "/quarxfs/large/"})
	if err != nil {
		return err
	}
	defer c.Close()
	begun := time.Now()
	var entries []register.Entry
	for i := range f.Nodes {
		n := t.nodeOf(f, i)
		up := cluster.Alive{Boot: cluster.NewID(), Version: "v0.0.0-20300101000000-0123456789ab", Since: time.Now().UTC()}
		entries = append(entries, entryOf("nodes/"+n.Name, n), entryOf("alive/"+n.Name, up))
	}
	for i := range f.Volumes {
		v := t.volumeOf(f, i)
		entries = append(entries, entryOf("volumes/"+v.Name, v))
	}
	var values int64
	for _, e := range entries {
		values += int64(len(e.Key) + len(e.Value))
	}
	for part := range slices.Chunk(entries, perTxn) {
		if _, err := c.Commit(ctx, register.Txn{Put: part}); err != nil {
			return err
		}
	}
	read := time.Now()
	list, _, err := c.List(ctx, "volumes/")
	if err != nil {
		return err
	}
	t.require(len(list) == manyVolumes, "the register lists %d volumes", len(list))
	t.measured("listing all volumes, s", time.Since(read).Seconds())
	c.Close()
	server.Close() // so that all is in its files
	data, err := sizeOf(filepath.Join(conf.Dir, "member", "snap"))
	if err != nil {
		return err
	}
	whole, err := sizeOf(conf.Dir)
	if err != nil {
		return err
	}
	t.measured("keys and values, MB", megabytes(values))
	t.measured("etcd's database, MB", megabytes(data))
	t.measured("etcd's database and log, MB", megabytes(whole))
	t.say("%d entries written and read in %.1f s", len(entries), time.Since(begun).Seconds())
	t.require(data < mostEtcd, "etcd's database has %d bytes", data)
	return nil
}

func megabytes(n int64) float64 { return math.Round(float64(n)/100_000) / 10 }

func entryOf(key string, v any) register.Entry {
	b, _ := json.Marshal(v) // of types of ours
	return register.Entry{Key: key, Value: b}
}

// nodeOf is a node as the register has it, with all that one has.
func (t *trial) nodeOf(f place.Facts, i int) cluster.Node {
	sum := func() string { return cluster.NewID() + cluster.NewID() }
	return cluster.Node{
		Name: f.Nodes[i].Name, ID: cluster.NewID(), Zone: f.Nodes[i].Zone, Capacity: f.Nodes[i].Disk.Size,
		Roles: []cluster.Role{cluster.RoleData}, State: cluster.StateIn, Address: fmt.Sprintf("10.%d.%d.%d:7441", i>>16, i>>8&255, i&255),
		Certificate: sum(), Serial: cluster.NewID(), Token: sum(), Joined: time.Now().UTC(),
	}
}

func (t *trial) volumeOf(f place.Facts, i int) cluster.Volume {
	v := f.Volumes[i]
	is := cluster.Volume{
		Name: fmt.Sprintf("volume-%06d", i), ID: v.ID, Domain: fmt.Sprintf("tenant-%03d", t.rng.IntN(500)), Epoch: 1,
		Store: fmt.Sprintf("/var/lib/quarxfs/node/volumes/volume-%06d", i), Copies: 2, RPO: 60, Created: time.Now().UTC(),
	}
	for _, c := range v.Copies {
		if c.Kind == place.Writer {
			is.Home = c.Node
		} else {
			is.Vaults = append(is.Vaults, c.Node)
		}
	}
	return is
}

// sizeOf is what the files below a directory take on the disk.
func sizeOf(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}
