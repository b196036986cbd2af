package cluster

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/mirror"
	"github.com/quarxtor/quarxfs/remote/cluster/register/registertest"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// The record of a mirrored volume is changed by its home alone, or by who becomes the home in the
// same step, and only from what the register says now, in this generation.
func TestSwapMirrored(t *testing.T) {
	ctx := t.Context()
	c := &Cluster{Register: registertest.NewFake().Client()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	node := func(name string) Node {
		return Node{Name: name, ID: NewID(), State: StateIn, Roles: []Role{RoleData}, Peer: name + ":2", Address: name + ":1", Certificate: name, Serial: name}
	}
	must(c.Create(ctx, Config{Name: "lab", ID: "1", Generation: "first"}, node("n1")))
	must(c.Invite(ctx, "secret", time.Now().Add(time.Hour)))
	_, err := c.Admit(ctx, "secret", node("n2"), time.Now())
	must(err)
	chunker := chunk.Default()
	_, err = c.AgreeOnDomain(ctx, "d", &chunker, time.Now())
	must(err)
	first := mirror.Member{Node: "n1", Incarnation: 1}
	_, err = c.CreateVolume(ctx, Volume{
		Name: "home", ID: NewID(), Domain: "d", Home: "n1", Store: "/one", Copies: 2, RPO: 60, Vaults: []string{"n2"},
		Mirrored: &Mirrored{Record: mirror.Record{InSync: []mirror.Member{first}}, Copies: []MirrorCopy{{Node: "n2"}}},
	})
	must(err)
	_, was, err := c.MirrorRecord(ctx, "home")
	must(err)
	next := was
	next.Epoch, next.Writer, next.InSync = 1, "n1", []mirror.Member{first, {Node: "n2", Incarnation: 2}}
	v, is, err := c.SwapMirrored(ctx, "home", "n1", "", next)
	must(err)
	if v.Epoch != 1 || is.Stamp.Revision <= was.Stamp.Revision || !v.Mirrored.HasSync("n2") {
		t.Fatalf("%+v, %+v", v, is)
	}
	refused := func(by, store string, next mirror.Record, want error) {
		t.Helper()
		if _, r, err := c.SwapMirrored(ctx, "home", by, store, next); !errors.Is(err, want) || r.Stamp != is.Stamp {
			t.Errorf("%s: %v, %v", by, r.Stamp, err)
		}
	}
	refused("n1", "", next, ErrStale)
	other := is
	other.Writer = "n2"
	refused("n2", "", other, ErrFenced)  // it is not the home
	refused("n2", "/two", is, ErrFenced) // the record is another's
	restored := is
	restored.Stamp.Generation++
	refused("n1", "", restored, ErrStale)
	// A takeover: home, epoch and record in one step, and the former home is a mirror.
	other.Epoch = 2
	v, is, err = c.SwapMirrored(ctx, "home", "n2", "/two", other)
	must(err)
	if v.Home != "n2" || v.Store != "/two" || v.Epoch != 2 || len(v.Vaults) != 0 || is.Epoch != 2 ||
		!slices.Equal(v.Mirrored.Copies, []MirrorCopy{{"n1", "/one"}}) {
		t.Fatalf("%+v, %+v", v, v.Mirrored)
	}
	refused("n1", "", is, ErrFenced)
	if err := (Volume{Name: "x", RPO: 2, Copies: 1, Store: "/x", Home: "n1", Mirrored: &Mirrored{Copies: []MirrorCopy{{Node: "n1"}}}}).Validate(); !errors.Is(err, ErrPlace) {
		t.Errorf("its home is its mirror: %v", err)
	}
}
