package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// An Init that was killed after any of its steps can be begun again; what it did not make is not
// taken for a part of it.
func TestInitAgain(t *testing.T) {
	for _, x := range []struct {
		name string
		left []string // a directory ends in a slash
		err  error
	}{
		{"the directory", nil, nil},
		{"the first directory in it", []string{"db/"}, nil},
		{"both", []string{"db/", "hot/"}, nil},
		{"an unfinished superblock", []string{"db/", "hot/", "quarxfs.json.tmp"}, nil},
		{"a database", []string{"db/", "hot/", "db/MANIFEST"}, ErrNotEmpty},
		{"segments", []string{"db/", "hot/", "hot/0000000000000001.seg"}, ErrNotEmpty},
		{"a file of somebody else's", []string{"db/", "notes"}, ErrNotEmpty},
		{"a file called db", []string{"db"}, ErrNotEmpty},
	} {
		dir := filepath.Join(t.TempDir(), "store")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range x.left {
			path := filepath.Join(dir, name)
			err := os.MkdirAll(filepath.Dir(path), 0o700)
			if name[len(name)-1] == '/' {
				err = os.MkdirAll(path, 0o700)
			} else if err == nil {
				err = os.WriteFile(path, []byte("{"), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := Init(dir, DefaultConfig()); !errors.Is(err, x.err) || x.err == nil && err != nil {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		if _, err := ReadConfig(dir); (err == nil) != (x.err == nil) {
			t.Errorf("%s: the superblock: %v", x.name, err)
		}
	}
}
