package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster/register"
	"github.com/quarxtor/quarxfs/store/chunk"
)

var (
	// ErrVolumeExists: another volume has the name.
	ErrVolumeExists = errors.New("the cluster has a volume of that name")
	// ErrNoVolume: there is no volume of that name.
	ErrNoVolume = errors.New("the cluster has no such volume")
	// ErrNoDomain: there is no domain of that name.
	ErrNoDomain = errors.New("the cluster has no such domain")
	// ErrDomain: the domain's volumes are split into blocks in another way.
	ErrDomain = errors.New("the domain splits files in another way")
	// ErrFenced: a newer epoch of the volume has begun, and another node writes it.
	ErrFenced = errors.New("another node writes the volume now")
	// ErrPlace: the node cannot be what it was chosen for.
	ErrPlace = errors.New("the node cannot have a copy")
)

// A Domain is the volumes that share blocks where their snapshots meet: files are split by
// the same rule in all of them.
type Domain struct {
	Name    string       `json:"name"`
	Chunker chunk.Config `json:"chunker"` // with its key, which is a secret of the cluster
	Created time.Time    `json:"created"`
}

// A Volume is a filesystem that one node writes, its home, and of which others have snapshots.
//
// INVARIANT: whoever writes the volume in an epoch is one node. TakeOver alone begins an epoch, and
// vaults refuse what comes from an older one.
type Volume struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"` // 32 hex digits
	Domain  string    `json:"domain"`
	Epoch   int64     `json:"epoch"` // from 1 on; one more with each new home
	Home    string    `json:"home"`  // the node that writes it
	Store   string    `json:"store"` // the directory of its store there
	Vaults  []string  `json:"vaults"`
	Copies  int       `json:"copies"` // how many are wanted, with the home's own
	RPO     int64     `json:"rpo_s"`  // seconds that the newest snapshot in a vault may be old
	Created time.Time `json:"created"`
	From    *Origin   `json:"from"` // what the home is being filled from; null: it has all
	// Mirrored: the commits are on other nodes before they are acknowledged; null: they are not.
	Mirrored *Mirrored `json:"mirrored,omitempty"`
}

// An Origin is the snapshot that a new home begins with.
type Origin struct {
	Vault    string    `json:"vault"` // the node that has it
	Snapshot string    `json:"snapshot"`
	Created  time.Time `json:"created"` // by the clock of the former home
}

// Limits of what a volume may ask for.
const (
	LeastRPO   = 2 // seconds: a snapshot each second
	MostRPO    = 7 * 24 * 3600
	MostCopies = 8
)

const (
	domainKeys = "domains/"
	volumeKeys = "volumes/"
)

// Validate reports what no volume can be: ErrName, ErrPlace.
func (v Volume) Validate() error {
	if err := CheckName(v.Name); err != nil {
		return fmt.Errorf("volume: %w", err)
	}
	switch {
	case v.RPO < LeastRPO || v.RPO > MostRPO:
		return fmt.Errorf("volume %s: %w: snapshots may be %d seconds to a week old", v.Name, ErrPlace, LeastRPO)
	case v.Copies < 1 || v.Copies > MostCopies:
		return fmt.Errorf("volume %s: %w: choose 1 to %d copies", v.Name, ErrPlace, MostCopies)
	case v.Store == "" || v.Store[0] != '/':
		return fmt.Errorf("volume %s: %w: its store needs a directory from the root on", v.Name, ErrPlace)
	case slices.Contains(v.Vaults, v.Home):
		return fmt.Errorf("volume %s: %w: %s writes it, and a vault is another machine", v.Name, ErrPlace, v.Home)
	}
	return v.Mirrored.validate(v)
}

// AgreeOnDomain returns the domain of that name, and makes it of the chunker if there is none. nil
// takes any that is there: ErrNoDomain; ErrDomain: it is there with another chunker.
func (c *Cluster) AgreeOnDomain(ctx context.Context, name string, chunker *chunk.Config, now time.Time) (d Domain, err error) {
	if err := CheckName(name); err != nil {
		return Domain{}, fmt.Errorf("domain: %w", err)
	}
	err = again(ctx, func(ctx context.Context) (err error) {
		d, err = c.agreeOnDomain(ctx, name, chunker, now)
		return err
	})
	return d, err
}

// agreeOnDomain is AgreeOnDomain once.
func (c *Cluster) agreeOnDomain(ctx context.Context, name string, chunker *chunk.Config, now time.Time) (Domain, error) {
	for {
		var d Domain
		err := c.get(ctx, domainKeys+name, &d)
		switch {
		case err == nil && chunker != nil && !sameChunker(d.Chunker, *chunker):
			return d, fmt.Errorf("%s: %w: its volumes would share no block with that store: give --domain and another name", name, ErrDomain)
		case err == nil:
			return d, nil
		case !errors.Is(err, register.ErrNotFound):
			return d, err
		case chunker == nil:
			return d, fmt.Errorf("%q: %w", name, ErrNoDomain)
		}
		d = Domain{Name: name, Chunker: *chunker, Created: now.UTC()}
		_, err = c.Register.Commit(ctx, register.Txn{
			If:  []register.Condition{{Key: domainKeys + name}},
			Put: []register.Entry{entry(domainKeys+name, d)},
		})
		if !errors.Is(err, register.ErrConflict) { // else somebody was quicker, whose domain counts
			return d, err
		}
	}
}

func sameChunker(a, b chunk.Config) bool {
	return a.Name == b.Name && a.Min == b.Min && a.Avg == b.Avg && a.Max == b.Max && bytes.Equal(a.Key, b.Key)
}

// CreateVolume adds it in its first epoch: ErrVolumeExists, ErrNoDomain, ErrNoNode, ErrPlace,
// ErrName. The very same volume may be added again, since the answer may have been lost.
func (c *Cluster) CreateVolume(ctx context.Context, v Volume) (Volume, error) {
	v.Epoch, v.From = 1, nil
	if err := v.Validate(); err != nil {
		return v, err
	}
	if _, err := c.AgreeOnDomain(ctx, v.Domain, nil, v.Created); err != nil {
		return v, err
	}
	if err := c.mayHold(ctx, slices.Concat([]string{v.Home}, v.Vaults, v.Mirrored.Nodes())); err != nil {
		return v, err
	}
	err := again(ctx, func(ctx context.Context) error {
		_, err := c.Register.Commit(ctx, register.Txn{
			If:  []register.Condition{{Key: volumeKeys + v.Name}},
			Put: []register.Entry{entry(volumeKeys+v.Name, v)},
		})
		return err
	})
	if !errors.Is(err, register.ErrConflict) {
		return v, err
	}
	// By its ID, which is random: the same one is there when the first answer was lost.
	there, err := c.Volume(ctx, v.Name)
	if err == nil && there.ID != v.ID {
		err = fmt.Errorf("%q: %w: it is on %s", v.Name, ErrVolumeExists, there.Home)
	}
	return there, err
}

// mayHold reports nodes that there are not, or that hold no data: ErrNoNode, ErrPlace.
func (c *Cluster) mayHold(ctx context.Context, names []string) error {
	for _, name := range names {
		n, err := c.Node(ctx, name)
		if err != nil {
			return err
		}
		if !n.Has(RoleData) {
			return fmt.Errorf("%s: %w: it votes, and holds no data", name, ErrPlace)
		}
	}
	return nil
}

// Volume returns the one of that name: ErrNoVolume.
func (c *Cluster) Volume(ctx context.Context, name string) (Volume, error) {
	var v Volume
	err := c.get(ctx, volumeKeys+name, &v)
	if errors.Is(err, register.ErrNotFound) {
		return v, fmt.Errorf("%q: %w", name, ErrNoVolume)
	}
	return v, err
}

// Volumes returns all, by name.
func (c *Cluster) Volumes(ctx context.Context) ([]Volume, error) {
	return listAs[Volume](ctx, c.Register, volumeKeys)
}

// VolumesAt is Volumes with the register's revision then.
func (c *Cluster) VolumesAt(ctx context.Context) ([]Volume, int64, error) {
	return listWith[Volume](ctx, c.Register, volumeKeys)
}

// Domains returns all, by name.
func (c *Cluster) Domains(ctx context.Context) (map[string]Domain, error) {
	return mapOf[Domain](ctx, c.Register, domainKeys)
}

// TakeOver begins an epoch with another home: v is the volume as it is to be, and was the epoch
// that the decision rests on. ErrFenced: another one has begun meanwhile. ErrNoVolume, ErrNoNode,
// ErrPlace.
func (c *Cluster) TakeOver(ctx context.Context, was int64, v Volume) error {
	if err := v.Validate(); err != nil {
		return err
	}
	if err := c.mayHold(ctx, []string{v.Home}); err != nil {
		return err
	}
	_, err := c.changeVolume(ctx, v.Name, func(there *Volume) error {
		switch {
		case there.ID != v.ID:
			return fmt.Errorf("%q: %w", v.Name, ErrNoVolume)
		case there.Epoch == v.Epoch && there.Home == v.Home:
			return nil // done before, and the answer was lost
		case there.Epoch != was || v.Epoch <= was:
			return fmt.Errorf("%s: %w: %s, in epoch %d", v.Name, ErrFenced, there.Home, there.Epoch)
		}
		*there = v
		return nil
	})
	return err
}

// SetVaults adds nodes to those that have snapshots of the volume, and takes others out, whose
// snapshots stay where they are: ErrNoVolume, ErrNoNode, ErrPlace. What is named is what is wanted:
// with more of them the volume is to have more copies, with fewer fewer, or a repair would undo it.
// copies says how many all the same; 0: as the vaults say.
func (c *Cluster) SetVaults(ctx context.Context, name string, add, remove []string, copies int) (Volume, error) {
	if err := c.mayHold(ctx, add); err != nil {
		return Volume{}, err
	}
	return c.changeVolume(ctx, name, func(v *Volume) error {
		before := len(v.Vaults)
		v.setVaults(add, remove)
		switch {
		case copies != 0:
			v.Copies = copies
		case len(add) > 0:
			v.Copies = max(v.Copies, 1+len(v.Vaults))
		default:
			// Asked for again there is nothing left to take out, and the number stays.
			v.Copies = max(v.Copies-(before-len(v.Vaults)), 1+len(v.Vaults))
		}
		return v.Validate()
	})
}

func (v *Volume) setVaults(add, remove []string) {
	v.Vaults = slices.DeleteFunc(slices.Clone(v.Vaults), func(n string) bool { return slices.Contains(remove, n) || slices.Contains(add, n) })
	v.Vaults = append(v.Vaults, add...)
}

// MoveVaults does what a plan says that was made for the volume as it was: register.ErrConflict, if
// it is another by now, and the plan with it. ErrNoVolume, ErrPlace.
func (c *Cluster) MoveVaults(ctx context.Context, was Volume, add, remove []string) (Volume, error) {
	if err := c.mayHold(ctx, add); err != nil {
		return Volume{}, err
	}
	next := was
	next.setVaults(add, remove)
	return c.changeVolume(ctx, was.Name, func(v *Volume) error {
		switch {
		case reflect.DeepEqual(*v, next):
			return nil // done before, and the answer was lost
		case !reflect.DeepEqual(*v, was):
			return register.ErrConflict
		}
		*v = next
		return v.Validate()
	})
}

// SetOrigin says what the home of that epoch is being filled from; nil: it has all.
func (c *Cluster) SetOrigin(ctx context.Context, name string, epoch int64, from *Origin) error {
	_, err := c.changeVolume(ctx, name, func(v *Volume) error {
		if v.Epoch != epoch {
			return fmt.Errorf("%s: %w: %s, in epoch %d", name, ErrFenced, v.Home, v.Epoch)
		}
		v.From = from
		return nil
	})
	return err
}

func (c *Cluster) changeVolume(ctx context.Context, name string, fn func(*Volume) error) (Volume, error) {
	return change(ctx, c.Register, volumeKeys+name, fmt.Errorf("%q: %w", name, ErrNoVolume), fn)
}
