package query

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/quarxtor/quarxfs/graph"
	"github.com/quarxtor/quarxfs/graph/export"
	"github.com/quarxtor/quarxfs/store"
)

// A UsageRequest says what is asked for.
type UsageRequest struct {
	Path string // of the live filesystem; empty: all of the store
	By   string // dir, snapshot or type; empty: dir
}

// The ways to divide a store.
const (
	ByDir      = "dir"
	BySnapshot = "snapshot"
	ByType     = "type"
)

// Usage is what parts of a store take.
type Usage struct {
	Path  string      `json:"path"`
	By    string      `json:"by"`
	Whole graph.Usage `json:"whole"` // of all at and below Path
	graph.Account
}

// Check reports a request that makes no sense. ErrRequest.
func (r UsageRequest) Check() error {
	switch r.By {
	case "", ByDir, ByType:
		return nil
	case BySnapshot:
		if strings.Trim(r.Path, "/") != "" {
			return fmt.Errorf("%w: by snapshot the whole store is divided, not %q", ErrRequest, r.Path)
		}
		return nil
	}
	return fmt.Errorf("%w: by %q: choose of dir, snapshot, type", ErrRequest, r.By)
}

// maxGroups bounds the groups of an account; what is beyond is one group.
const maxGroups = 5000

const (
	liveGroup     = "live files"
	objectsGroup  = "objects"
	snapshotGroup = "snapshots"
	hereGroup     = "files here"
	othersGroup   = "others"
	noExtension   = "no extension"
	severalGroup  = "names in several parts"
	clonesGroup   = "clones" // that nobody has looked into
)

// Usage implements remote.Graph.
func (q *Graph) Usage(ctx context.Context, r UsageRequest) (Usage, error) {
	r.Path = strings.Trim(r.Path, "/")
	if r.By == "" {
		r.By = ByDir
	}
	u := Usage{Path: r.Path, By: r.By}
	if err := r.Check(); err != nil {
		return u, err
	}
	top := export.LiveFile{Directory: true}
	if q.live != nil {
		var err error
		if top, err = q.live.LiveFile(ctx, r.Path); err != nil {
			return u, err
		}
	} else if r.Path != "" {
		return u, fmt.Errorf("%q: %w", r.Path, ErrNoFiles)
	}
	err := q.withMatrix(ctx, func(m *graph.Matrix, rows *store.View) error {
		g := &grouper{m: m, top: top.Ino, request: r, byName: make(map[string]int), files: make(map[uint64]*grouped)}
		if err := q.groupFiles(ctx, g, rows, top.Directory); err != nil {
			return err
		}
		if r.Path == "" {
			g.groupNames()
		}
		whole := graph.Group{Name: r.Path}
		for ino, f := range g.files {
			k := f.group
			// Only now is it known of a file with several names whether they are in one group.
			if k == severalIn {
				k = g.group(severalGroup)
			}
			if k >= 0 {
				g.groups[k].Files = append(g.groups[k].Files, ino)
				whole.Files = append(whole.Files, ino)
			}
		}
		account, err := m.Account(ctx, []graph.Group{whole})
		if err != nil {
			return err
		}
		// Asked for apart: what two groups share is freed by the whole, and by neither.
		u.Whole = g.count(whole, account.Groups[0])
		u.Account, err = m.Account(ctx, g.groups)
		for i := range u.Groups {
			u.Groups[i] = g.count(g.groups[i], u.Groups[i])
		}
		return err
	})
	// What nothing was found for, such as "files here" without files, is no part.
	u.Groups = slices.DeleteFunc(append([]graph.Usage{}, u.Groups...), func(g graph.Usage) bool {
		return g.Files == 0 && g.Freed == 0 && g.SharedOutside == 0
	})
	slices.SortStableFunc(u.Groups, func(a, b graph.Usage) int {
		return cmp.Or(cmp.Compare(b.Freed, a.Freed), cmp.Compare(b.SharedOutside, a.SharedOutside), cmp.Compare(a.Name, b.Name))
	})
	return u, err
}

// A grouper divides files and names into groups.
type grouper struct {
	m       *graph.Matrix
	top     uint64 // inode of the request's path
	request UsageRequest
	groups  []graph.Group
	byName  map[string]int
	files   map[uint64]*grouped // by inode
	dirs    map[uint64]dirName
	below   map[uint64]int // group of what is in a directory; outside; top itself
}

// grouped is what an inode holds, and the group that its names put it in.
type grouped struct {
	Content
	group int
}

type dirName struct {
	parent uint64
	name   string
}

// Instead of a group: a file with names in several groups, or also outside of
// the path; a directory outside.
const (
	severalIn  = -1
	severalOut = -2
	outside    = -3
	nameless   = -4 // no name led to it yet
)

// count adds what a group's files hold to its usage.
func (g *grouper) count(files graph.Group, u graph.Usage) graph.Usage {
	for _, ino := range files.Files {
		u.Files += g.files[ino].Files
		u.Apparent += g.files[ino].Data
	}
	return u
}

// group returns the number of a group, made if need be.
func (g *grouper) group(name string) int {
	k, ok := g.byName[name]
	// Each group is walked through apart and is a line of the answer.
	if !ok && len(g.groups) >= maxGroups {
		name = othersGroup
		k, ok = g.byName[name]
	}
	if !ok {
		k = len(g.groups)
		g.byName[name] = k
		g.groups = append(g.groups, graph.Group{Name: name})
	}
	return k
}

func (q *Graph) groupFiles(ctx context.Context, g *grouper, rows *store.View, directory bool) error {
	err := q.rows.Contents(ctx, rows, func(c Content) error {
		g.files[c.Ino] = &grouped{c, nameless}
		return nil
	})
	if err != nil {
		return err
	}
	if !directory {
		if f := g.files[g.top]; f != nil {
			f.group = g.group(g.request.Path)
		}
		return nil
	}
	// Directories first, in a pass of their own: the names of files ask for the group of the
	// directory above.
	g.dirs, g.below = make(map[uint64]dirName), make(map[uint64]int)
	err = q.rows.Names(ctx, rows, func(n Name) error {
		if n.Directory {
			g.dirs[n.Ino] = dirName{n.Dir, n.Name}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if f := g.files[g.top]; f != nil { // a clone that nobody has looked into
		f.group = g.group(hereGroup)
	}
	return q.rows.Names(ctx, rows, func(n Name) error {
		if f := g.files[n.Ino]; f != nil && n.Ino != g.top {
			g.add(f, n)
		}
		return nil
	})
}

// add gives a file, by one of its names, to a group.
func (g *grouper) add(f *grouped, n Name) {
	k := g.in(n.Dir, 0)
	switch {
	case n.Directory && k != outside && g.request.By == ByDir:
		k = g.in(n.Ino, 0)
	case k == outside:
	case n.Directory && g.request.By == ByType:
		k = g.group(clonesGroup)
	case g.request.By == ByType:
		ext := extension(n.Name)
		if ext == "" {
			ext = noExtension
		}
		k = g.group(ext)
	}
	switch old := f.group; {
	// The first name, or another one in the same group.
	case old == nameless || old == k:
	case k == outside || old == outside:
		k = severalOut
	case old != severalOut:
		k = severalIn
	default:
		k = old
	}
	f.group = k
}

// in returns the group of what is in a directory.
func (g *grouper) in(dir uint64, depth int) int {
	if k, ok := g.below[dir]; ok {
		return k
	}
	k := outside
	d, ok := g.dirs[dir]
	switch {
	case dir == g.top && g.request.By == BySnapshot:
		k = g.group(liveGroup)
	case dir == g.top && g.request.By == ByDir:
		k = g.group(hereGroup)
	case dir == g.top:
		k = severalIn // each file has a group of its own
	case !ok || depth > maxDepth:
	case d.parent == g.top && g.request.By == ByDir:
		k = g.group(d.name + "/")
	default:
		k = g.in(d.parent, depth+1)
	}
	// Also for the directories on the way, so that each is climbed from once.
	g.below[dir] = k
	return k
}

// maxDepth ends the way up a damaged tree.
const maxDepth = 5000

// groupNames gives objects and snapshots to groups.
func (g *grouper) groupNames() {
	first, end := g.m.NameRows()
	for r := first; r < end; r++ {
		n := g.m.Row(r).Name
		name := objectsGroup
		switch {
		case n.Snapshot && g.request.By == BySnapshot:
			name = "snapshot " + n.Name
		case n.Snapshot:
			name = snapshotGroup
		}
		k := g.group(name)
		g.groups[k].Rows = append(g.groups[k].Rows, r)
	}
}

// extension is the type of a file by its name, for people: ".go", or "".
func extension(name string) string {
	ext := path.Ext(name)
	if ext == name || len(ext) < 2 || len(ext) > 12 {
		return ""
	}
	return ext
}
