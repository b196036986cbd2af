package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/register"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// A forgetful register loses the answers to commits, which it has done or not.
type forgetful struct {
	register.Register
	does  bool
	loses int // so many answers
}

func (f *forgetful) Commit(ctx context.Context, t register.Txn) (int64, error) {
	if f.loses == 0 {
		return f.Register.Commit(ctx, t)
	}
	f.loses--
	if f.does {
		if _, err := f.Register.Commit(ctx, t); err != nil {
			return 0, err
		}
	}
	return 0, register.ErrUncertain
}

// invite makes a token while answers come.
func (f *forgetful) invite(secret string) error {
	return (&cluster.Cluster{Register: f.Register}).Invite(context.Background(), secret, noon)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What administrators decide is done, once, although the answer to it was lost.
func TestLostAnswers(t *testing.T) {
	moved := home()
	moved.Home, moved.Vaults, moved.Epoch = "n3", []string{"n2"}, 2
	for _, test := range []struct {
		name string
		do   func(context.Context, *cluster.Cluster) error
	}{
		{"a token", func(ctx context.Context, c *cluster.Cluster) error { return c.Invite(ctx, "secret", noon) }},
		{"a volume", func(ctx context.Context, c *cluster.Cluster) error {
			v := home()
			v.Name, v.ID = "other", "02"
			_, err := c.CreateVolume(ctx, v)
			return err
		}},
		{"vaults", func(ctx context.Context, c *cluster.Cluster) error {
			v, err := c.SetVaults(ctx, "home", []string{"n3"}, []string{"n2"}, 0)
			if err == nil && (len(v.Vaults) != 1 || v.Vaults[0] != "n3") {
				t.Errorf("the vaults are %v", v.Vaults)
			}
			return err
		}},
		{"copies", func(ctx context.Context, c *cluster.Cluster) error {
			_, err := c.SetVaults(ctx, "home", nil, nil, 3)
			return err
		}},
		{"a plan", func(ctx context.Context, c *cluster.Cluster) error {
			was := home()
			was.Epoch = 1
			v, err := c.MoveVaults(ctx, was, []string{"n3"}, nil)
			if err == nil && len(v.Vaults) != 2 {
				t.Errorf("the vaults are %v", v.Vaults)
			}
			return err
		}},
		{"a drain", func(ctx context.Context, c *cluster.Cluster) error {
			n, err := c.SetState(ctx, "n2", cluster.StateDraining)
			if err == nil && n.State != cluster.StateDraining {
				t.Errorf("the node is %s", n.State)
			}
			return err
		}},
		{"a removal", func(ctx context.Context, c *cluster.Cluster) error {
			// Repeated by hand, when it was done, it says that there is no such node.
			err := c.Remove(ctx, "n3", noon)
			if _, there := c.Node(ctx, "n3"); err == nil && !errors.Is(there, cluster.ErrNoNode) {
				t.Errorf("the node is there: %v", there)
			}
			if errors.Is(err, cluster.ErrNoNode) {
				err = c.Remove(ctx, "n2", noon)
			}
			return err
		}},
		{"a node", func(ctx context.Context, c *cluster.Cluster) error {
			name := fmt.Sprint("n", len(must(c.Nodes(ctx)))+1)
			if err := c.Register.(*forgetful).invite(name); err != nil {
				return err
			}
			n, err := c.Admit(ctx, name, cluster.Node{Name: name, ID: name, Joined: noon}, noon)
			if err == nil && n.Name != name {
				t.Errorf("the node is %+v", n)
			}
			return err
		}},
		{"a domain", func(ctx context.Context, c *cluster.Cluster) error {
			ours := chunk.Default()
			_, err := c.AgreeOnDomain(ctx, fmt.Sprint("d", len(must(c.Domains(ctx)))), &ours, noon)
			return err
		}},
		{"patience", func(ctx context.Context, c *cluster.Cluster) error {
			_, err := c.SetPatience(ctx, time.Minute)
			return err
		}},
		{"a takeover", func(ctx context.Context, c *cluster.Cluster) error { return c.TakeOver(ctx, 1, moved) }},
	} {
		for _, does := range []bool{true, false} {
			c := withNodes(t)
			ours := chunk.Default()
			if _, err := c.AgreeOnDomain(t.Context(), "default", &ours, noon); err != nil {
				t.Fatal(err)
			}
			if _, err := c.CreateVolume(t.Context(), home()); err != nil {
				t.Fatal(err)
			}
			f := &forgetful{Register: c.Register, does: does, loses: 1}
			c.Register = f
			if err := test.do(t.Context(), c); err != nil {
				t.Errorf("%s, done before: %v: %v", test.name, does, err)
			}
			f.does, f.loses = false, 1000
			if err := test.do(t.Context(), c); !errors.Is(err, register.ErrUncertain) {
				t.Errorf("%s, and no answer ever: %v", test.name, err)
			}
		}
	}
}

// A silent register leaves reads without an answer.
type silent struct {
	register.Register
	hangs int // so many reads
}

func (s *silent) Get(ctx context.Context, key string) (register.Entry, error) {
	if s.hangs == 0 {
		return s.Register.Get(ctx, key)
	}
	s.hangs--
	<-ctx.Done()
	return register.Entry{}, ctx.Err()
}

// A read that a try has no time for is not the end of what was asked, nor taken for the caller's
// own time that is over.
func TestSilentReads(t *testing.T) {
	for hangs, want := range map[int]error{1: nil, 2: nil, 1000: register.ErrUncertain} {
		synctest.Test(t, func(t *testing.T) {
			c := withNodes(t)
			c.Register = &silent{c.Register, hangs}
			if _, err := c.SetState(t.Context(), "n2", cluster.StateDraining); !errors.Is(err, want) {
				t.Errorf("%d reads without an answer: %v, want %v", hangs, err, want)
			}
		})
	}
}
