package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/quarxtor/quarxfs/remote/cluster/register"
)

// A Copy is all that the register has decided, as a node has last read it. Nodes keep one, so that
// the register can be made again when it is lost or was restored from an old backup.
type Copy struct {
	Format   int                   `json:"format"`
	Revision int64                 `json:"revision"` // of the register, when this became so
	Config   Config                `json:"config"`
	Nodes    []Node                `json:"nodes"`
	Domains  []Domain              `json:"domains"`
	Volumes  []Volume              `json:"volumes"`
	Revoked  map[string]Revocation `json:"revoked"`
}

// CopyFormat is that of a Copy.
const CopyFormat = 1

// Copy reads all of it. What is read later is at least as new: a domain is there before a volume
// that is in it, and a node before what it holds.
func (c *Cluster) Copy(ctx context.Context) (all Copy, err error) {
	all.Format = CopyFormat
	if all.Volumes, all.Revision, err = c.VolumesAt(ctx); err != nil {
		return all, err
	}
	var errs [4]error
	all.Domains, errs[0] = listAs[Domain](ctx, c.Register, domainKeys)
	all.Revoked, errs[1] = mapOf[Revocation](ctx, c.Register, revokeKeys)
	all.Nodes, errs[2] = c.Nodes(ctx)
	all.Config, errs[3] = c.Config(ctx)
	return all, errors.Join(errs[:]...)
}

// Newer compares two copies as cmp.Compare does: revisions begin anew with each rebuild.
func (c Copy) Newer(other Copy) int {
	return cmp.Or(cmp.Compare(c.Config.Rebuilds, other.Config.Rebuilds), cmp.Compare(c.Revision, other.Revision))
}

// entries are what the register has for the copy, the config last: with it there is a cluster.
func (c Copy) entries() (all []register.Entry) {
	for _, n := range c.Nodes {
		all = append(all, entry(nodeKeys+n.Name, n))
	}
	for _, d := range c.Domains {
		all = append(all, entry(domainKeys+d.Name, d))
	}
	for _, v := range c.Volumes {
		all = append(all, entry(volumeKeys+v.Name, v))
	}
	for _, serial := range slices.Sorted(maps.Keys(c.Revoked)) {
		all = append(all, entry(revokeKeys+serial, c.Revoked[serial]))
	}
	return append(all, entry(configKey, c.Config))
}

// Restore makes the register say what the copy does, and nothing else that was decided. It may be
// broken off and begun again; until its end the register has the config of before, or none.
func (c *Cluster) Restore(ctx context.Context, to Copy) error {
	want := to.entries()
	keep := make(map[string]bool)
	for _, e := range want {
		keep[e.Key] = true
	}
	var gone []string
	for _, prefix := range []string{nodeKeys, domainKeys, volumeKeys} {
		entries, _, err := c.Register.List(ctx, prefix)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !keep[e.Key] {
				gone = append(gone, e.Key)
			}
		}
	}
	// First what goes: a node that was removed must not be there beside one that has its address.
	for some := range slices.Chunk(gone, mostPuts) {
		if _, err := c.Register.Commit(ctx, register.Txn{Delete: some}); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(want, mostPuts) {
		if _, err := c.Register.Commit(ctx, register.Txn{Put: some}); err != nil {
			return err
		}
	}
	return nil
}

// Merge returns what the register is to say by the newest of the copies and by what homes remember
// of the volumes that they write: of each volume the highest epoch counts, since it was decided by
// a register that has had it. The generation is new, which is given: no node goes on with the old
// one before it has seen this. An error, if the copies are of several clusters, or there is none.
func Merge(copies []Copy, homes []Volume, generation string) (Copy, error) {
	if len(copies) == 0 {
		return Copy{}, fmt.Errorf("%w: no node that answers has a copy of it", ErrNoCluster)
	}
	newest := copies[0]
	for _, c := range copies {
		if c.Config.ID != newest.Config.ID {
			return Copy{}, fmt.Errorf("%w: copies are of %s and of %s", ErrExists, c.Config.ID, newest.Config.ID)
		}
		if c.Newer(newest) > 0 {
			newest = c
		}
	}
	merged := newest
	merged.Volumes = slices.Clone(newest.Volumes)
	// Copies that are older know of no later epoch, unless the newest is of a register that has
	// gone back and on from there.
	for _, c := range copies {
		homes = append(homes, c.Volumes...)
	}
	for _, v := range homes {
		i := slices.IndexFunc(merged.Volumes, func(o Volume) bool { return o.ID == v.ID })
		switch {
		case i >= 0 && v.Epoch > merged.Volumes[i].Epoch:
			merged.Volumes[i] = v
		case i < 0 && v.Validate() == nil && !slices.ContainsFunc(merged.Volumes, func(o Volume) bool { return o.Name == v.Name }):
			merged.Volumes = append(merged.Volumes, v)
		}
	}
	slices.SortFunc(merged.Volumes, func(a, b Volume) int { return cmp.Compare(a.Name, b.Name) })
	merged.Config.Generation = generation
	merged.Config.Rebuilds++
	return merged, nil
}
