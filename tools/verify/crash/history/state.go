package history

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// A Kind of operation.
type Kind string

// The kinds. Names are relative to the worker's directory; a name that ends in
// a slash is a directory.
const (
	Create   Kind = "create"   // Path, empty; it must not exist
	Write    Kind = "write"    // Tag's bytes into Path at Off, Len of them; Tag 0 is zeroes
	Truncate Kind = "truncate" // Path to Len
	Rename   Kind = "rename"   // Path to To, over what is there
	Unlink   Kind = "unlink"   // Path
	Mkdir    Kind = "mkdir"    // Path
	Rmdir    Kind = "rmdir"    // Path
	Fsync    Kind = "fsync"    // the file Path
	FsyncDir Kind = "fsyncdir" // the directory Path; "" is the worker's own
)

// An Op is one system call of a worker, in the order that it made them. The
// last ones can be without an End: the crash hit them, and any first of them may
// have happened. There is one at most after a kill, and there are several after
// a Cut.
type Op struct {
	Kind Kind   `json:"kind"`
	Path string `json:"path"`
	To   string `json:"to,omitempty"`
	Off  int64  `json:"off,omitempty"`
	Len  int64  `json:"len,omitempty"`
	Tag  Tag    `json:"tag,omitempty"`
	// Start and End are nanoseconds on one clock for all workers; End is 0 for
	// a call that did not return success.
	Start int64 `json:"start"`
	End   int64 `json:"end,omitempty"`
}

func (o Op) String() string {
	switch o.Kind {
	case Rename:
		return fmt.Sprintf("rename %s %s", o.Path, o.To)
	case Write:
		return fmt.Sprintf("write %s [%d,+%d) %v", o.Path, o.Off, o.Len, o.Tag)
	case Truncate:
		return fmt.Sprintf("truncate %s to %d", o.Path, o.Len)
	}
	return fmt.Sprintf("%s %s", o.Kind, o.Path)
}

// A State is a directory tree: the content of each file by name.
type State map[string][]byte

// Clone copies names and contents.
func (s State) Clone() State {
	c := make(State, len(s))
	for name, content := range s {
		c[name] = slices.Clone(content)
	}
	return c
}

// Names is sorted.
func (s State) Names() []string { return slices.Sorted(maps.Keys(s)) }

// Apply does op in place. Contents that others may share are not written to
// only where the op replaces them, so clone a state before handing it on.
func (s State) Apply(op Op) {
	switch op.Kind {
	case Create, Mkdir:
		s[op.Path] = []byte{}
	case Write:
		c := resize(s[op.Path], max(int64(len(s[op.Path])), op.Off+op.Len))
		part := c[op.Off : op.Off+op.Len]
		if op.Tag == 0 {
			clear(part)
		} else {
			Fill(part, op.Tag, op.Off)
		}
		s[op.Path] = c
	case Truncate:
		// Cut with its capacity, so that growing again gives zeroes and not the old bytes.
		s[op.Path] = resize(s[op.Path], op.Len)
	case Rename:
		s[op.To] = s[op.Path]
		delete(s, op.Path)
	case Unlink, Rmdir:
		delete(s, op.Path)
	}
}

// resize cuts or extends with zeroes.
func resize(c []byte, n int64) []byte {
	if n <= int64(len(c)) {
		return c[:n:n]
	}
	return append(c, make([]byte, n-int64(len(c)))...)
}

// Diff names the first few differences, or is "".
func (want State) Diff(got State) string {
	var lines []string
	for _, name := range want.Names() {
		switch content, ok := got[name]; {
		case !ok:
			lines = append(lines, name+" is missing")
		case string(content) != string(want[name]):
			lines = append(lines, name+": "+explain(want[name], content))
		}
	}
	for _, name := range got.Names() {
		if _, ok := want[name]; !ok {
			lines = append(lines, name+" should not be there")
		}
	}
	// One lost prefix can make every file differ; the first few say as much.
	const most = 6
	if len(lines) > most {
		lines = append(lines[:most], fmt.Sprintf("and %d more", len(lines)-most))
	}
	return strings.Join(lines, "; ")
}

// touches tells whether op changes the file or directory of that name.
func (o Op) touches(name string) bool {
	switch o.Kind {
	case Fsync, FsyncDir:
		return false
	case Rename:
		return o.Path == name || o.To == name
	}
	return o.Path == name
}

// names tells whether op changes a directory.
func (o Op) names() bool {
	switch o.Kind {
	case Fsync, FsyncDir, Write, Truncate:
		return false
	}
	return true
}

// renames tells whether op changes an entry of the directory dir.
func (o Op) renames(dir string) bool {
	return o.names() && (parent(o.Path) == dir || o.Kind == Rename && parent(o.To) == dir)
}

func parent(name string) string {
	if d := path.Dir(strings.TrimSuffix(name, "/")); d != "." {
		return d
	}
	return ""
}

// durable returns how many of the ops, counted from the first, acknowledged
// fsyncs promise to be there: up to the last that changed a file which was fsynced
// afterwards, or an entry of a directory that was. The fsync of a file
// promises its name too, as on every Linux filesystem that people use.
func durable(ops []Op) int {
	count := 0
	for j, op := range ops {
		if op.End == 0 || op.Kind != Fsync && op.Kind != FsyncDir {
			continue
		}
		// Backwards to what is promised already: what lies before that is promised, too.
		for i := j - 1; i >= count; i-- {
			if op.Kind == Fsync && ops[i].touches(op.Path) || op.Kind == FsyncDir && ops[i].renames(op.Path) {
				count = i + 1
				break
			}
		}
	}
	return count
}
