package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
	"github.com/quarxtor/quarxfs/store/db"
	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/disk"
)

// sentinels says of each exported error of the packages below the store with which code a command
// ends for it, or what keeps it from reaching a user.
var sentinels = map[string]struct {
	err      error
	code     int
	internal string
}{
	"db.ErrNotFound":      {internal: "the store says which block, name or file is not there"},
	"db.ErrStop":          {internal: "it ends a scan"},
	"db.ErrFull":          {err: db.ErrFull, code: 11},
	"db.ErrCorrupt":       {err: db.ErrCorrupt, code: 6},
	"db.ErrUnreadable":    {err: db.ErrUnreadable, code: 6},
	"db.ErrOlder":         {err: db.ErrOlder, code: 5},
	"db.ErrLocked":        {internal: "the store makes store.ErrLocked of it"},
	"db.ErrClosed":        {internal: "a store is closed when nobody uses it any more"},
	"db.ErrRemoved":       {err: db.ErrRemoved, code: 3},
	"db.ErrFailed":        {err: db.ErrFailed, code: exitOther},
	"db.ErrReadOnly":      {err: db.ErrReadOnly, code: 20},
	"tiering.ErrNotFound": {internal: "a block whose segment is gone is store.ErrCorrupt"},
	"tiering.ErrCorrupt":  {internal: "a block whose bytes are wrong is store.ErrCorrupt"},
	"tiering.ErrOpen":     {internal: "the sweep comes back to the segment"},
	"tiering.ErrClosed":   {internal: "a store is closed when nobody uses it any more"},
	"tiering.ErrNoTier":   {err: tiering.ErrNoTier, code: 17},
	"tiering.ErrPolicy":   {internal: "the settings make store.ErrConfig of it"},
	"disk.ErrUnreachable": {internal: "package tiering makes ErrUnavailable of it"},
	"segment.ErrFormat":   {internal: "package tiering makes a CorruptError of it"},

	"tiering.ErrUnavailable": {err: tiering.ErrUnavailable, code: 17},
	"store.ErrUnwritable":    {err: store.ErrUnwritable, code: 20},
	"store.ErrNotFound":      {err: store.ErrNotFound, code: 7},
	"store.ErrCorrupt":       {err: store.ErrCorrupt, code: 6},
	"store.ErrNotStore":      {err: store.ErrNotStore, code: 3},
	"store.ErrExists":        {err: store.ErrExists, code: 12},
	"store.ErrNameTaken":     {err: store.ErrNameTaken, code: 16},
	"store.ErrHeld":          {err: store.ErrHeld, code: 16},
	"store.ErrMounted":       {err: store.ErrMounted, code: 9},
	"store.ErrNotEmpty":      {err: store.ErrNotEmpty, code: 12},
	"store.ErrNewer":         {err: store.ErrNewer, code: 5},
	"store.ErrOlder":         {err: store.ErrOlder, code: 5},
	"store.ErrDamaged":       {err: store.ErrDamaged, code: 6},
	"store.ErrLocked":        {err: store.ErrLocked, code: 4},
	"store.ErrMirrored":      {err: store.ErrMirrored, code: 4},
	"store.ErrConfig":        {err: store.ErrConfig, code: 2},
	"store.ErrRange":         {err: store.ErrRange, code: 7},
	"store.ErrAmbiguous":     {err: store.ErrAmbiguous, code: 8},
	"store.ErrNoTier":        {err: store.ErrNoTier, code: 17},
	"store.ErrHasTier":       {err: store.ErrHasTier, code: 17},
	"store.ErrNotCold":       {err: store.ErrNotCold, code: 17},
	"store.ErrForeign":       {err: store.ErrForeign, code: 17},
	"tiering.ErrForeign":     {err: tiering.ErrForeign, code: 17},
	"store.ErrFull":          {err: store.ErrFull, code: 11},
	"store.ErrReadOnly":      {err: store.ErrReadOnly, code: 20},
	"store.ErrFailed":        {err: store.ErrFailed, code: exitOther},
	"store.ErrUnavailable":   {err: store.ErrUnavailable, code: 17},
	"config.ErrToken":        {err: config.ErrToken, code: 18},
	"store.ErrStop":          {internal: "it ends a listing"},
	"store.ErrUncommitted":   {internal: "it is beside the error that says why"},
}

// Each error that a package below the commands exports has its exit code, or a reason to have none.
func TestSentinels(t *testing.T) {
	unseen := slices.Collect(maps.Keys(sentinels))
	for _, dir := range []string{"store", "store/config", "store/db", "tiering", "tiering/disk", "tiering/segment", "tiering/s3"} {
		for _, name := range exportedErrors(t, "../../"+dir) {
			name = path.Base(dir) + "." + name
			row, ok := sentinels[name]
			switch got := exitCode(fmt.Errorf("doing a thing: %w", row.err)); {
			case !ok:
				t.Errorf("%s has no row here: which exit code has it?", name)
			case row.internal == "" && (row.err == nil || got != row.code):
				t.Errorf("%s: exit code %d, want %d", name, got, row.code)
			}
			unseen = slices.DeleteFunc(unseen, func(n string) bool { return n == name })
		}
	}
	if len(unseen) > 0 {
		t.Errorf("there are no such errors: %v", unseen)
	}
}

// exportedErrors returns the names of the variables of a package that begin with Err.
func exportedErrors(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(dir, err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR || strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, spec := range g.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(name.Name, "Err") {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

// What is wrong with a bucket or a disk is said as something that a user can do something about.
func TestUnreachableTier(t *testing.T) {
	err := tiering.MakeCold(unreachable{disk.OS()}, t.TempDir(), "00")
	if exitCode(err) != 17 || !errors.Is(err, disk.ErrUnreachable) {
		t.Error(err)
	}
}

type unreachable struct{ disk.FS }

func (unreachable) MkdirAll(string) error { return disk.ErrUnreachable }
