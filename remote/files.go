package remote

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/quarxtor/quarxfs/graph/query"
)

// A File is a file of the live filesystem.
type File struct {
	Path   string    `json:"path"` // from the root, without a leading slash
	Ino    uint64    `json:"ino"`
	Type   FileType  `json:"type"`
	Mode   uint32    `json:"mode"` // permission bits
	UID    uint32    `json:"uid"`
	GID    uint32    `json:"gid"`
	Nlink  uint32    `json:"nlink"`
	Size   int64     `json:"size"`
	Alloc  int64     `json:"allocated_bytes"` // that hold data
	Mtime  time.Time `json:"mtime"`
	Target string    `json:"target,omitempty"` // of a symbolic link
}

// A FileType is what find(1) calls a type, in full.
type FileType string

// The types of files.
const (
	Regular   FileType = "file"
	Directory FileType = "dir"
	Symlink   FileType = "symlink"
	FIFO      FileType = "fifo"
	Socket    FileType = "socket"
	Block     FileType = "block"
	Char      FileType = "char"
)

var fileTypes = []FileType{Regular, Directory, Symlink, FIFO, Socket, Block, Char}

// ParseFileType reads a type or its letter in find(1).
func ParseFileType(s string) (FileType, error) {
	letters := map[string]FileType{"f": Regular, "d": Directory, "l": Symlink, "p": FIFO, "s": Socket, "b": Block, "c": Char}
	if t, ok := letters[s]; ok {
		return t, nil
	}
	if slices.Contains(fileTypes, FileType(s)) {
		return FileType(s), nil
	}
	return "", fmt.Errorf("%w: file type %q: choose of file, dir, symlink, fifo, socket, block, char", ErrRequest, s)
}

// A FileFilter says which files to list; zero values let all pass.
type FileFilter struct {
	Path  string     // this file or directory and all below it
	Types []FileType // any of these
	Name  string     // last part of the path, with the wildcards of path.Match
	Limit int64      // at most so many
}

// Check reports a filter that makes no sense. ErrRequest.
func (f FileFilter) Check() error {
	if _, err := path.Match(f.Name, ""); err != nil { // it says "syntax error in pattern" and no more
		return fmt.Errorf("%w: name pattern %q: close each [ with a ], and put a backslash before what stands for itself", ErrRequest, f.Name)
	}
	for _, t := range f.Types {
		if !slices.Contains(fileTypes, t) {
			_, err := ParseFileType(string(t))
			return err
		}
	}
	return nil
}

// Match reports whether a file passes, its Path apart.
func (f FileFilter) Match(p string, t FileType) bool {
	if len(f.Types) > 0 && !slices.Contains(f.Types, t) {
		return false
	}
	if f.Name == "" {
		return true
	}
	ok, err := path.Match(f.Name, path.Base(p))
	return err == nil && ok
}

// Files lists the live filesystem of a store. The volume's owner provides it.
type Files interface {
	// ListFiles calls fn for the files that pass, directories before what they
	// hold, until fn fails. store.ErrNotFound: there is nothing at the
	// filter's Path.
	ListFiles(ctx context.Context, filter FileFilter, fn func(File) error) error
}

var fileParams = []param{
	{"path", "", "only what is below, from the root"},
	{"name", "", "only names that match, as of a shell: *.go"},
	{"type", "", "only these types, separated by commas: f, d, l, p, s, b, c"},
	{"limit", 0, "list so many at most"},
}

func (f FileFilter) query() url.Values {
	q := make(url.Values)
	setText(q, "path", f.Path)
	setText(q, "name", f.Name)
	setNumber(q, "limit", f.Limit)
	types := make([]string, len(f.Types))
	for i, t := range f.Types {
		types[i] = string(t)
	}
	setText(q, "type", strings.Join(types, ","))
	return q
}

func parseFileFilter(q url.Values) (f FileFilter, err error) {
	f.Path, f.Name = q.Get("path"), q.Get("name")
	if f.Limit, err = number(q, "limit"); err != nil {
		return f, err
	}
	for t := range strings.SplitSeq(q.Get("type"), ",") {
		if t == "" {
			continue
		}
		parsed, err := ParseFileType(t)
		if err != nil {
			return f, err
		}
		f.Types = append(f.Types, parsed)
	}
	return f, f.Check()
}

// ListFiles implements Files.
func (l *Local) ListFiles(ctx context.Context, filter FileFilter, fn func(File) error) error {
	if l.env.Files == nil {
		return query.ErrNoFiles
	}
	return l.env.Files.ListFiles(ctx, filter, fn)
}

// ListFiles implements Files.
func (c *Client) ListFiles(ctx context.Context, filter FileFilter, fn func(File) error) error {
	return receiveStream(ctx, c, withQuery("/v1/files", filter.query()), fn)
}

func (s *server) files(w http.ResponseWriter, r *http.Request) {
	filter, err := parseFileFilter(r.URL.Query())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	sendStream(s, w, r, func(fn func(File) error) error { return s.node.ListFiles(r.Context(), filter, fn) })
}
