package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd"
	"github.com/quarxtor/quarxfs/store/durable"
)

// errGoneBack: the register is at a revision before one that this node has seen.
var errGoneBack = errors.New("the register is older than what this node has seen, as after it was restored from a copy: quarxfs cluster rebuild")

// readCopy reads one of the files with a copy of the register: fs.ErrNotExist.
func (d Dir) readCopy(name string) (c cluster.Copy, err error) {
	b, err := os.ReadFile(d.path(name))
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err == nil && c.Format != cluster.CopyFormat {
		err = fmt.Errorf("%s: format %d is not known", name, c.Format)
	}
	return c, err
}

func (d Dir) writeCopy(name string, c cluster.Copy) error {
	b, err := json.MarshalIndent(c, "", "\t")
	if err != nil {
		return err
	}
	return durable.Write(d.path(name), b)
}

// followAgain follows a register that was made again: what names the old generation is refused from
// now on. A member of etcd that the new one does not know is of the old.
func (a *Agent) followAgain(conf cluster.Config, members []etcd.Member) error {
	if conf.Rebuilds < a.settings.Cluster.Rebuilds {
		return errGoneBack
	}
	n := a.settings.Node
	known := slices.ContainsFunc(members, func(m etcd.Member) bool { return m.Peer == n.Peer && m.Name != "" })
	err := a.store(func(s *Settings) {
		s.Cluster, s.Founder = conf, false
		s.Lost = n.Has(cluster.RoleVoter) && !known
	})
	if err != nil {
		return err
	}
	return errAgain
}

// leaveLost prepares a member of etcd that is to be of a register that is made again: the data of
// the old one are moved aside. It is done before anything of the agent runs, and may be done twice.
func (a *Agent) leaveLost() error {
	c, err := a.dir.readCopy(rebuildName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", rebuildName, err)
	}
	makes := err == nil && c.Config.Generation != a.settings.Cluster.Generation
	if !makes && !a.settings.Lost {
		return nil
	}
	old := a.dir.path(etcdName)
	for i := 1; ; i++ { // what is there may be all that is left of a decision
		aside := fmt.Sprintf("%s.lost-%d", old, i)
		if _, err := os.Lstat(aside); err == nil {
			continue
		}
		if err := os.Rename(old, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		break
	}
	err = a.store(func(s *Settings) {
		s.Lost = false
		if makes {
			s.Cluster, s.Founder, s.Clients = c.Config, true, nil
		}
	})
	a.settings = a.stored
	return err
}

// foundRegister has the register of the first node, or of one that makes it again, say what it is
// to begin with; afterwards the node is as any other.
func (a *Agent) foundRegister(ctx context.Context) error {
	c, err := a.dir.readCopy(rebuildName)
	switch {
	case err == nil:
		if err = a.cluster.Restore(ctx, c); err == nil {
			err = os.Remove(a.dir.path(rebuildName))
		}
	case errors.Is(err, fs.ErrNotExist):
		err = a.cluster.Create(ctx, a.settings.Cluster, a.settings.Node)
	}
	if err != nil {
		return err
	}
	// If its disk is lost, it must not make an empty register beside that of the others.
	return a.store(func(s *Settings) { s.Founder = false })
}

func (a *Agent) know(*http.Request) (client.Knowledge, error) {
	return client.Knowledge{Copy: a.memory.lastCopy(), Homes: a.homes.Written(), Ready: a.memory.reach() == nil}, nil
}

// rebuild makes the register again on this node, or brings one that was restored to what the nodes
// know; or, without a revision that the administrator has confirmed, only says what it would be.
func (a *Agent) rebuild(r *http.Request) (client.Rebuild, error) {
	var q client.RebuildRequest
	if err := read(r, &q); err != nil {
		return client.Rebuild{}, err
	}
	// A bound of its own, so that a register without a quorum is told from a request that is over.
	ask, cancel := context.WithTimeout(r.Context(), askTime)
	is, reached := a.cluster.Copy(ask)
	cancel()
	b := client.Rebuild{Anew: reached != nil, Changes: []string{}, Silent: []string{}}
	known, lost := a.askWhatIsKnown(r.Context(), &b)
	var copies []cluster.Copy
	var homes []cluster.Volume
	for _, k := range known {
		if k.Copy.Format == cluster.CopyFormat {
			copies = append(copies, k.Copy)
		}
		homes = append(homes, k.Homes...)
	}
	if !b.Anew {
		copies = append(copies, is)
	}
	var err error
	if b.Copy, err = cluster.Merge(copies, homes, cluster.NewID()); err != nil {
		return b, err
	}
	if b.Anew {
		return b, a.makeAgain(&b, q, known, lost)
	}
	b.Changes = differences(is, b.Copy)
	if len(b.Changes) > 0 && q.Revision != b.Copy.Revision {
		return b, nil
	}
	if b.Done = true; len(b.Changes) == 0 {
		return b, nil
	}
	a.log.Warn("the register is brought to what the nodes know", "changes", len(b.Changes))
	return b, a.cluster.Restore(r.Context(), b.Copy)
}

// askWhatIsKnown asks all nodes that this one knows of, and returns which voters are silent.
func (a *Agent) askWhatIsKnown(ctx context.Context, b *client.Rebuild) (known map[string]client.Knowledge, lost []string) {
	ctx, cancel := context.WithTimeout(ctx, fenceTime)
	defer cancel()
	known = make(map[string]client.Knowledge)
	var mu sync.Mutex
	var asked sync.WaitGroup
	nodes := a.memory.lastNodes()
	for _, n := range nodes {
		asked.Go(func() {
			var k client.Knowledge
			var err error
			if n.Name == a.settings.Node.Name {
				k, err = a.know(nil)
			} else {
				at := client.Remote(n.Address, a.identity.Client())
				k, err = at.Know(ctx)
				at.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				known[n.Name] = k
			}
		})
	}
	asked.Wait()
	// In the order of the nodes, and not of their answers, so that two looks say the same.
	for _, n := range nodes {
		if _, ok := known[n.Name]; ok {
			b.Answered = append(b.Answered, n.Name)
			continue
		}
		b.Silent = append(b.Silent, n.Name)
		if n.Has(cluster.RoleVoter) {
			lost = append(lost, n.Name)
		}
	}
	return known, lost
}

// makeAgain has this node be the first voter of a register that says what was merged. That must be
// none beside another: whoever may still decide has the last word.
func (a *Agent) makeAgain(b *client.Rebuild, q client.RebuildRequest, known map[string]client.Knowledge, lost []string) error {
	self := a.settings.Node
	if a.signer == nil {
		return fmt.Errorf("%w: %s does not vote: do it on a node that does", client.ErrRequest, self.Name)
	}
	for name, k := range known {
		if k.Ready {
			return fmt.Errorf("%w: %s reaches the register: start the other voters", client.ErrHolds, name)
		}
	}
	if len(lost) > 0 && !q.Force {
		return fmt.Errorf("%w: %s may have a register that decides: start them, or give --force if they are lost for good", client.ErrHolds, strings.Join(lost, ", "))
	}
	if q.Revision != b.Copy.Revision {
		return nil
	}
	if err := a.dir.writeCopy(rebuildName, b.Copy); err != nil {
		return err
	}
	a.log.Warn("the register is made again", "revision", b.Copy.Revision, "generation", b.Copy.Config.Generation)
	b.Done = true
	select {
	case a.again <- struct{}{}: // obeyed when this was answered: serve shuts down in order
	default:
	}
	return nil
}

// differences says what a register does not have as it is to be.
func differences(is, to cluster.Copy) []string {
	changes := append(
		differs("volume", is.Volumes, to.Volumes, func(v cluster.Volume) string { return v.Name }),
		differs("node", is.Nodes, to.Nodes, func(n cluster.Node) string { return n.Name })...)
	slices.Sort(changes)
	return changes
}

// differs names what comes, goes or becomes another one.
func differs[T any](kind string, is, to []T, name func(T) string) []string {
	changes := []string{} // in JSON no null
	had := make(map[string]T)
	for _, v := range is {
		had[name(v)] = v
	}
	for _, v := range to {
		before, ok := had[name(v)]
		if !ok || !reflect.DeepEqual(before, v) {
			changes = append(changes, kind+" "+name(v))
		}
		delete(had, name(v)) // what is left then is to go
	}
	for gone := range had {
		changes = append(changes, kind+" "+gone)
	}
	return changes
}
