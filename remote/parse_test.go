package remote

import (
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFiltersSurviveTheirQuery(t *testing.T) {
	for _, f := range []FileFilter{{}, {Path: "a b/ü&c=d", Name: "*.go", Types: []FileType{Regular, Symlink}, Limit: 9}} {
		got, err := parseFileFilter(f.query())
		if diff := cmp.Diff(f, got); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	}
	for _, f := range []BlockFilter{{}, {Kinds: []string{"data", "tree"}, Prefix: "0a", MinRefs: 1, MaxRefs: 2, MinSize: 3, Limit: 4, Unreferenced: true}} {
		got, err := parseBlockFilter(f.query())
		if diff := cmp.Diff(f, got); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	}
}

func FuzzRequestParsers(f *testing.F) {
	f.Add("kind=data&limit=3&after=00", "type=f&name=*.go")
	f.Add("prefix=zz", "limit=-1")
	f.Fuzz(func(t *testing.T, blocks, files string) {
		if q, err := url.ParseQuery(blocks); err == nil {
			if f, err := parseBlockFilter(q); err == nil && f.Check() != nil {
				t.Errorf("%+v", f)
			}
		}
		if q, err := url.ParseQuery(files); err == nil {
			if f, err := parseFileFilter(q); err == nil && f.Check() != nil {
				t.Errorf("%+v", f)
			}
		}
	})
}
