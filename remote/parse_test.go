package remote

import (
	"errors"
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

func TestRangesSurviveTheirHeader(t *testing.T) {
	for _, c := range []struct{ off, length int64 }{{0, 1}, {1, -1}, {5, 10}, {1 << 40, 1 << 40}} {
		off, length, err := parseRange(formatRange(c.off, c.length))
		if err != nil || off != c.off || length != c.length {
			t.Errorf("%+v became %d, %d, %v", c, off, length, err)
		}
	}
}

func FuzzRequestParsers(f *testing.F) {
	f.Add("bytes=0-5", "kind=data&limit=3", "type=f&name=*.go")
	f.Add("bytes=9223372036854775807-9223372036854775807", "prefix=zz", "limit=-1")
	f.Fuzz(func(t *testing.T, h, blocks, files string) {
		off, length, err := parseRange(h)
		if err == nil && (off < 0 || length < -1 || length == 0) {
			t.Errorf("range %q: %d, %d", h, off, length)
		}
		if err != nil && !errors.Is(err, ErrRequest) {
			t.Error(err)
		}
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
