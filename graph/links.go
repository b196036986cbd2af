package graph

import (
	"fmt"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/vertex"
)

// Links returns what a file, tree or snapshot vertex links to, in the order of
// its links, with the kinds that it says they have. It takes only what is a sound
// vertex. The error is store.ErrCorrupt.
func Links(kind store.Kind, plain []byte) (links []Link, err error) {
	switch kind {
	case store.KindFile:
		links, err = fileLinks(plain)
	case store.KindTree:
		links, err = treeLinks(plain)
	case store.KindSnapshot:
		links, err = snapshotLinks(plain)
	default:
		err = fmt.Errorf("no vertex of a filesystem: %w", store.ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("%s vertex: %w", kind, err)
	}
	return links, nil
}

func fileLinks(plain []byte) (links []Link, err error) {
	v, err := vertex.DecodeFile(plain)
	kind := store.KindData
	if v.Height > 0 {
		kind = store.KindFile
	}
	for _, p := range v.Parts {
		if !p.Hole {
			links = append(links, Link{ID: p.ID, Kind: kind})
		}
	}
	return links, err
}

func treeLinks(plain []byte) (links []Link, err error) {
	n, err := decodeNode(plain)
	if err != nil {
		return nil, err
	}
	for _, it := range n.items {
		if it.entry == nil {
			links = append(links, Link{ID: it.id, Kind: store.KindTree})
		} else {
			links = appendLinks(links, it.entry)
		}
	}
	return links, nil
}

func appendLinks(links []Link, e *Entry) []Link {
	for _, l := range []Link{e.Link, e.XattrLink} {
		if l.Kind != 0 {
			links = append(links, l)
		}
	}
	return links
}

func snapshotLinks(plain []byte) ([]Link, error) {
	s, err := DecodeSnapshot(plain)
	if err != nil {
		return nil, err
	}
	links := appendLinks(nil, &s.Root)
	if s.Table != (ID{}) {
		links = append(links, Link{ID: s.Table, Kind: store.KindTree})
	}
	return links, nil
}
