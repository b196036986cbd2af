package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/control"
	"github.com/quarxtor/quarxfs/remote/cluster/register"
)

// vaults are those of the volume in the register.
func (l *lab) vaults(name string) string { return fmt.Sprint(l.is(name).Vaults) }

// rounds has the controller decide twice: once to begin, and once to see what has come of it.
func (l *lab) rounds(silence control.Silence) {
	l.t.Helper()
	for range 2 {
		l.must(l.agents["n1"].round(l.t.Context(), silence))
	}
}

// ask is a call of an administrator at n1.
func ask[T any](l *lab, do func(*http.Request) (T, error), name string, q any) (T, error) {
	l.t.Helper()
	b, err := json.Marshal(q)
	l.must(err)
	return do(request(l.t, name, string(b)))
}

// A copy is made anew when its node has been away for long enough, and the old one is dropped when
// it comes back; a node that is drained gives its copy up only when another one has it.
func TestController(t *testing.T) {
	l := newLab(t, "n1", "n2", "n3", "n4", "n5")
	l.volume("home", 2, "n2")
	l.push("home", "cluster-1-1", "n2")
	a := l.agents["n1"]
	l.learn()
	if !a.controls() || l.agents["n2"].controls() {
		t.Error("the first voter that is up is to be the controller")
	}
	silence := control.Silence{}
	l.rounds(silence)
	if got := l.vaults("home"); got != "[n2]" {
		t.Fatalf("all is well, and the vaults are %s", got)
	}

	// Drained: first another one, which is whole when it says so.
	d, err := ask(l, a.drain, "n2", client.DrainRequest{Draining: true})
	if err != nil || !d.Draining || len(d.Copies) != 1 || d.Copies[0].To == "" {
		t.Fatalf("%+v, %v", d, err)
	}
	l.rounds(silence)
	to := l.is("home").Vaults[len(l.is("home").Vaults)-1]
	if len(l.is("home").Vaults) != 2 { // which one is the emptiest is another each time, as all have one disk
		t.Fatalf("vaults %s, and it was said %+v", l.vaults("home"), d)
	}
	if c := l.codes("n1"); slices.Contains(c, "REPAIR_STALLED") {
		t.Errorf("%q", c)
	}
	l.rounds(silence)
	if got := l.vaults("home"); got != "[n2 "+to+"]" {
		t.Fatalf("before anything has come there the vaults are %s", got)
	}
	if err := a.holdsNothing(t.Context(), "n2"); !errors.Is(err, client.ErrHolds) {
		t.Errorf("n2 may leave: %v", err)
	}
	l.push("home", "cluster-1-1", to)
	l.rounds(silence)
	if got := l.vaults("home"); got != "["+to+"]" {
		t.Fatalf("after it has come there the vaults are %s", got)
	}
	if err := a.holdsNothing(t.Context(), "n2"); err != nil {
		t.Errorf("n2 may not leave: %v", err)
	}
	if d, err = ask(l, a.drained, "n2", nil); err != nil || len(d.Copies) != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = ask(l, a.drain, "n2", client.DrainRequest{}); err != nil || d.Draining {
		t.Errorf("%+v, %v", d, err)
	}

	// Dead: not at once, and then on another node.
	if _, err := ask(l, a.drain, "n9", client.DrainRequest{Draining: true}); !errors.Is(err, cluster.ErrNoNode) {
		t.Errorf("a node that there is not: %v", err)
	}
	l.kill(to)
	delete(l.agents, to)
	l.learn()
	l.rounds(silence)
	if got := l.vaults("home"); got != "["+to+"]" {
		t.Fatalf("at once after a death the vaults are %s", got)
	}
	_, err = l.cluster.SetPatience(t.Context(), time.Second)
	l.must(err)
	l.must(l.cluster.NoteDown(t.Context(), cluster.Membership{}, time.Now()))
	l.since(to, time.Now().Add(-2*time.Second))
	l.rounds(silence)
	next := l.is("home").Vaults
	if len(next) != 2 || next[0] != to {
		t.Fatalf("after a death the vaults are %s", l.vaults("home"))
	}
	l.push("home", "cluster-1-1", next[1])
	l.rounds(silence)
	if got := l.vaults("home"); got != fmt.Sprint(next) {
		t.Fatalf("what nobody sees was dropped: %s", got)
	}
	// Removed: it is dropped, as nobody waits for what it had.
	if err := a.holdsNothing(t.Context(), to); err != nil {
		t.Errorf("a dead node may not be removed: %v", err)
	}
	l.must(l.cluster.Remove(t.Context(), to, time.Now()))
	l.rounds(silence)
	if got := l.vaults("home"); got != "["+next[1]+"]" {
		t.Fatalf("after it was removed the vaults are %s", got)
	}
	if rs, err := l.cluster.Repairs(t.Context()); err != nil || len(rs) != 0 {
		t.Errorf("all is well, and repairs are noted: %+v, %v", rs, err)
	}
}

// since has the register say since when a node is down.
func (l *lab) since(name string, when time.Time) {
	l.t.Helper()
	b, err := json.Marshal(cluster.Down{Since: when})
	l.must(err)
	_, err = l.cluster.Register.Commit(l.t.Context(), register.Txn{Put: []register.Entry{{Key: "down/" + name, Value: b}}})
	l.must(err)
}

// While many are down, or the register has gone back, nothing is made or dropped.
func TestControllerHeld(t *testing.T) {
	for _, test := range []struct {
		what string
		do   func(l *lab)
		code string
	}{
		{"two of five", func(l *lab) {
			for _, name := range []string{"n2", "n5"} {
				l.kill(name)
				delete(l.agents, name)
				l.since(name, time.Now().Add(-time.Hour))
			}
		}, "NODE_DOWN"},
		{"the register has gone back", func(l *lab) {
			v := l.is("home")
			next := v
			next.Epoch = 7
			d, err := l.cluster.AgreeOnDomain(l.t.Context(), v.Domain, nil, time.Now())
			l.must(err)
			l.must(l.agents["n2"].vault.Raise(next, d))
			_, err = l.cluster.SetState(l.t.Context(), "n2", cluster.StateDraining)
			l.must(err)
		}, "CONTROL_ROLLED_BACK"},
	} {
		t.Run(test.what, func(t *testing.T) {
			l := newLab(t, "n1", "n2", "n3", "n4", "n5")
			l.volume("home", 2, "n2")
			l.push("home", "cluster-1-1", "n2")
			test.do(l)
			l.rounds(control.Silence{})
			if got := l.vaults("home"); got != "[n2]" {
				t.Errorf("the vaults are %s", got)
			}
			s, err := l.agents["n1"].status(request(t, "", ""))
			if err != nil || s.Held == "" || !slices.Contains(l.codes("n1"), test.code) {
				t.Errorf("held %q, %q, %v", s.Held, l.codes("n1"), err)
			}
		})
	}
}

// What blast says is by what the nodes say, and names what there is not.
func TestBlast(t *testing.T) {
	l := newLab(t, "n1/a", "n2/b", "n3/b", "n4/c")
	l.volume("home", 3, "n2", "n3")
	l.volume("alone", 2, "n4")
	l.push("home", "cluster-1-1", "n2")
	for _, test := range []struct {
		q    client.BlastRequest
		want string
		err  error
	}{
		{client.BlastRequest{Nodes: []string{"n1"}}, "alone lost 0; home from a vault 1", nil},
		{client.BlastRequest{Nodes: []string{"n2"}}, "home with less copies 1", nil},
		{client.BlastRequest{Zones: []string{"b"}}, "home with less copies 1", nil},
		{client.BlastRequest{Nodes: []string{"n1"}, Zones: []string{"b"}}, "alone lost 0; home lost 0", nil},
		{client.BlastRequest{Nodes: []string{"n9"}}, "", cluster.ErrNoNode},
		{client.BlastRequest{Zones: []string{"z"}}, "", cluster.ErrNoNode},
		{client.BlastRequest{Worst: -1}, "", client.ErrRequest},
	} {
		b, err := ask(l, l.agents["n1"].blast, "", test.q)
		var words []string
		for _, loss := range b.Losses {
			words = append(words, fmt.Sprintf("%s %s %d", loss.Volume, loss.Fate, loss.Copies))
		}
		slices.Sort(words)
		if got := strings.Join(words, "; "); got != test.want || !errors.Is(err, test.err) {
			t.Errorf("%+v: %q, %v; want %q", test.q, got, err, test.want)
		}
	}
}

// fetched does the fetches that a node was asked for, as fetchQueue.run does, and tells how many.
func (l *lab) fetched(node string) (n int) {
	l.t.Helper()
	a := l.agents[node]
	for ; len(a.fetches.waiting) > 0; n++ {
		f := <-a.fetches.waiting
		l.must(a.fetchNow(l.t.Context(), f))
		a.fetches.done(f)
	}
	return n
}

// at are the names of the volume's snapshots in a node's vault.
func (l *lab) at(volume, node string) string {
	l.t.Helper()
	v := l.is(volume)
	lists, err := l.agents["n1"].vaultLists(l.t.Context(), v, []string{node})
	l.must(err)
	var names []string
	for _, s := range lists[node] {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// What a vault alone has, as a snapshot that a user has removed at home, goes to another one before
// the vault is dropped; afterwards it is removed there, and never sooner.
func TestDrainKeepsAll(t *testing.T) {
	l := newLab(t, "n1", "n2", "n3")
	l.volume("home", 2, "n2")
	l.push("home", "monday", "n2")
	l.push("home", "cluster-1-1", "n2")
	a := l.agents["n1"]
	silence := control.Silence{}
	_, err := ask(l, a.drain, "n2", client.DrainRequest{Draining: true})
	l.must(err)
	l.rounds(silence)
	l.push("home", "cluster-1-1", "n3")
	l.rounds(silence)
	if got := l.vaults("home"); got != "[n2 n3]" {
		t.Fatalf("monday is on n2 alone, and the vaults are %s", got)
	}
	if n := l.fetched("n3"); n != 1 {
		t.Errorf("%d fetches", n)
	}
	if got := l.at("home", "n3"); got != "cluster-1-1 monday" {
		t.Errorf("n3 has %q", got)
	}
	l.push("home", "cluster-1-2", "n2") // the last one that it gets
	l.rounds(silence)
	if got := l.vaults("home"); got != "[n3]" {
		t.Fatalf("n3 has all, and the vaults are %s", got)
	}
	l.must(a.round(t.Context(), silence))
	if got := l.at("home", "n2"); got != "cluster-1-2" {
		t.Errorf("n2 has %q, of which n3 lacks cluster-1-2", got)
	}
	l.push("home", "cluster-1-3", "n3")
	l.must(a.round(t.Context(), silence))
	if got := l.at("home", "n2"); got != "" {
		t.Errorf("n2 has still %q", got)
	}
	if c := l.agents["n2"].vault.Copies(t.Context()); len(c) != 1 || c[0].Epoch != 1 {
		t.Errorf("the fence is gone with the snapshots: %+v", c)
	}
	if _, err := ask(l, l.agents["n3"].discard, "", client.DiscardRequest{Volume: "home", ID: l.is("home").ID}); !errors.Is(err, client.ErrHolds) {
		t.Errorf("a vault was told to remove what it has: %v", err)
	}
}

// While the home is away a vault gets what another one has.
func TestVaultFromVault(t *testing.T) {
	l := newLab(t, "n1", "n2", "n3", "n4")
	v, _ := l.volume("home", 3, "n2", "n3")
	l.push("home", "monday", "n2")
	l.push("home", "cluster-1-1", "n2")
	l.push("home", "cluster-1-2", "n2")
	l.mu.Lock()
	delete(l.sites, v.Store) // it is not mounted
	l.mu.Unlock()
	silence := control.Silence{}
	l.rounds(silence)
	if n := l.fetched("n3"); n != 1 {
		t.Errorf("%d fetches, and two rounds wanted the same one", n)
	}
	if got := l.at("home", "n3"); got != "cluster-1-2 monday" {
		t.Errorf("n3 has %q", got)
	}
	l.rounds(silence)
	if n := l.fetched("n3"); n != 0 {
		t.Errorf("%d fetches of what is there", n)
	}
	if _, err := ask(l, l.agents["n4"].beginFetch, "", client.FetchRequest{Volume: "home", From: "n2"}); !errors.Is(err, client.ErrRequest) {
		t.Errorf("a node that is no vault fetches: %v", err)
	}
}
