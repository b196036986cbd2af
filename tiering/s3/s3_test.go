package s3_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/disk/disktest"
	"github.com/quarxtor/quarxfs/tiering/s3"
	"github.com/quarxtor/quarxfs/tiering/s3/s3test"
)

const bucketURL = "s3://" + s3test.Bucket + "/some/prefix"

// noise returns n bytes that are the same for the same seed.
func noise(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 9))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

// withKeys writes a file of credentials.
func withKeys(t testing.TB, id, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	text := "[default]\naws_access_key_id = " + id + "\naws_secret_access_key = " + secret + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newFS gives up soon, for servers that fail.
func newFS(t testing.TB, endpoint, spool string) *s3.FS {
	return newFSWithin(t, endpoint, spool, 2*time.Second)
}

// patientFS waits as long as by default: no test of what is stored shall depend on a busy machine.
func patientFS(t testing.TB, endpoint, spool string) *s3.FS {
	return newFSWithin(t, endpoint, spool, 0)
}

func newFSWithin(t testing.TB, endpoint, spool string, timeout time.Duration) *s3.FS {
	t.Helper()
	f, err := s3.New(s3.Config{
		Server: s3.Server{Endpoint: endpoint, Credentials: withKeys(t, s3test.AccessKey, s3test.SecretKey)},
		URL:    bucketURL, Spool: spool, Timeout: timeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.MkdirAll("/"); err != nil {
		t.Fatal(err)
	}
	return f
}

// put makes an object, and returns it as it was opened for writing.
func put(t testing.TB, f *s3.FS, name string, content []byte) disk.File {
	t.Helper()
	file, err := f.Create(name + ".open")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	if _, err := file.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Datasync(), f.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	if err := f.Rename(name+".open", name); err != nil {
		t.Fatal(err)
	}
	return file
}

func requireBytes(t testing.TB, f disk.File, want []byte) {
	t.Helper()
	got := make([]byte, len(want)+10)
	if n, err := f.ReadAt(got, 0); !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], want) {
		t.Fatalf("%d of %d bytes, %v", n, len(want), err)
	}
	if size, err := f.Size(); err != nil || size != int64(len(want)) {
		t.Fatalf("size %d, %v", size, err)
	}
}

// TestConformance: a bucket is to tiers what a directory is.
func TestConformance(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	disktest.Conform(t, patientFS(t, server.URL, filepath.Join(t.TempDir(), "spool")), "/any/dir")
}

func TestFileBecomesAnObject(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	spool := filepath.Join(t.TempDir(), "spool")
	f := patientFS(t, server.URL, spool)
	small, large := noise(1, 1000), noise(2, 35<<20) // of several parts
	one, two := put(t, f, "one", small), put(t, f, "two", large)
	requireBytes(t, one, small)
	requireBytes(t, two, large)
	if _, err := one.WriteAt([]byte("x"), 0); err == nil {
		t.Error("an object was written to")
	}
	left, err := os.ReadDir(spool)
	if err != nil || len(left) > 0 {
		t.Errorf("in the spool: %v, %v", left, err)
	}
	list, err := f.List("/")
	if err != nil || len(list) != 2 || list[0] != (disk.Info{Name: "one", Size: 1000}) || list[1].Name != "two" {
		t.Errorf("list: %v, %v", list, err)
	}
	again, err := patientFS(t, server.URL, spool).Open("/any/dir/two")
	if err != nil {
		t.Fatal(err)
	}
	requireBytes(t, again, large)
	p := make([]byte, 5000)
	if n, err := again.ReadAt(p, 20<<20); n != len(p) || err != nil || !bytes.Equal(p, large[20<<20:][:5000]) {
		t.Errorf("a range: %d, %v", n, err)
	}
	if n, err := again.ReadAt(p, 40<<20); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	if err := f.Remove("one"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Open("one"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a removed object: %v", err)
	}
	if _, err := one.ReadAt(p[:500], 300); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read of a removed object: %v", err)
	}
}

// TestWriteOnce: a crash between upload and removal from the spool leaves both;
// what others have put there is not replaced.
func TestWriteOnce(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	spool := filepath.Join(t.TempDir(), "spool")
	f := newFS(t, server.URL, spool)
	content := noise(3, 300_000)
	put(t, f, "one", content)
	if err := os.WriteFile(filepath.Join(spool, "one.open"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Rename("one.open", "one"); err != nil {
		t.Errorf("the same bytes: %v", err)
	}
	if _, err := os.Stat(filepath.Join(spool, "one.open")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still in the spool: %v", err)
	}
	for _, other := range [][]byte{noise(4, 300_000), content[:299_999]} {
		if err := os.WriteFile(filepath.Join(spool, "one.open"), other, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.Rename("one.open", "one"); !errors.Is(err, fs.ErrExist) {
			t.Errorf("other bytes: %v", err)
		}
	}
	// Another process wins between the look and the upload.
	p := s3test.NewProxy(t, server.URL)
	p.Set(func(r *http.Request) s3test.Fault {
		if r.Method == http.MethodHead {
			return s3test.Fault{Status: 404}
		}
		return s3test.Fault{}
	})
	if err := newFS(t, p.URL, spool).Rename("one.open", "one"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a race: %v", err)
	}
	o, err := f.Open("one")
	if err != nil {
		t.Fatal(err)
	}
	requireBytes(t, o, content)
}

func TestBadServers(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	spool := filepath.Join(t.TempDir(), "spool")
	content := noise(5, 200_000)
	put(t, newFS(t, server.URL, spool), "one", content)
	p := s3test.NewProxy(t, server.URL)
	f := newFS(t, p.URL, spool)
	o, err := f.Open("one")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	first := func(n int64, fault s3test.Fault) func(*http.Request) s3test.Fault {
		asked.Store(0)
		return func(*http.Request) s3test.Fault {
			if asked.Add(1) <= n {
				return fault
			}
			return s3test.Fault{}
		}
	}
	for name, fault := range map[string]s3test.Fault{
		"busy": {Status: 503, Code: "SlowDown"}, "broken": {Status: 500, Code: "InternalError"},
		"gone": {Drop: true}, "cut": {Cut: 5000},
	} {
		p.Set(first(2, fault))
		requireBytes(t, o, content)
		if asked.Load() < 3 {
			t.Errorf("%s: asked %d times", name, asked.Load())
		}
	}
	for name, c := range map[string]struct {
		fault s3test.Fault
		want  string
		reach bool
	}{
		"always busy": {s3test.Fault{Status: 503, Code: "SlowDown"}, "longer", false}, // than there is time to ask again
		"silent":      {s3test.Fault{Delay: time.Minute}, "longer", false},
		"always gone": {s3test.Fault{Drop: true}, "longer", false},
		"always cut":  {s3test.Fault{Cut: 5000}, "broke off", false},
		"refusing":    {s3test.Fault{Status: 403, Code: "AccessDenied"}, "credentials", true},
		"whole":       {s3test.Fault{Status: 200}, "InternalError", true},
	} {
		p.Set(func(*http.Request) s3test.Fault { return c.fault })
		start := time.Now()
		_, err := o.ReadAt(make([]byte, 100_000), 50_000)
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, disk.ErrUnreachable) == c.reach || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: %v", name, took)
		}
	}
	p.Set(nil)
	requireBytes(t, o, content)
}

func TestUploadsThatFail(t *testing.T) {
	t.Parallel()
	server := s3test.Start(t)
	spool := filepath.Join(t.TempDir(), "spool")
	p := s3test.NewProxy(t, server.URL)
	f := newFS(t, p.URL, spool)
	content := noise(6, 40_000)
	for name, fault := range map[string]s3test.Fault{
		"refused": {Status: 403, Code: "AccessDenied"}, "dropped": {Drop: true}, "done-unheard": {Late: true},
	} {
		p.Set(nil)
		file, err := f.Create(name + ".open")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
		p.Set(func(r *http.Request) s3test.Fault {
			if r.Method == http.MethodPut {
				return fault
			}
			return s3test.Fault{}
		})
		if err := f.Rename(name+".open", name); err == nil {
			t.Errorf("%s: no error", name)
		}
		requireBytes(t, file, content)
		p.Set(nil)
		if err := f.Rename(name+".open", name); err != nil {
			t.Errorf("%s, later: %v", name, err)
		}
		requireBytes(t, file, content)
		file.Close()
	}
	f.Interrupt()
	if err := os.WriteFile(filepath.Join(spool, "x.open"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Rename("x.open", "x"); err == nil {
		t.Error("an upload after Interrupt")
	}
}

func TestCredentials(t *testing.T) {
	server := s3test.Start(t)
	try := func(file string) error {
		f, err := s3.New(s3.Config{Server: s3.Server{Endpoint: server.URL, Credentials: file}, URL: bucketURL, Spool: t.TempDir(), Timeout: 2 * time.Second})
		if err == nil {
			_, err = f.List("/")
		}
		return err
	}
	for _, prefix := range []string{"AWS_", "QUARXFS_S3_"} {
		t.Setenv(prefix+"ACCESS_KEY_ID", "")
	}
	if err := try(""); err == nil || !strings.Contains(err.Error(), "environment") {
		t.Errorf("none: %v", err)
	}
	wrong := withKeys(t, s3test.AccessKey, "wrong")
	if err := try(wrong); err == nil || !strings.Contains(err.Error(), "refuses the credentials") {
		t.Errorf("wrong: %v", err)
	}
	right := withKeys(t, s3test.AccessKey, s3test.SecretKey)
	if err := try(right); err != nil {
		t.Errorf("right: %v", err)
	}
	if err := os.Chmod(right, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := try(right); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("open to others: %v", err)
	}
	t.Setenv("QUARXFS_S3_ACCESS_KEY_ID", s3test.AccessKey)
	t.Setenv("QUARXFS_S3_SECRET_ACCESS_KEY", s3test.SecretKey)
	if err := try(""); err != nil {
		t.Errorf("from the environment: %v", err)
	}
}

func TestPlaces(t *testing.T) {
	for url, ok := range map[string]bool{
		"s3://b": true, "s3://b/": true, "s3://b/a/c": true, "s3://b/a/": true, "s3://": false, "s3:///a": false,
		"s3://b//a": false, "s3://b/../a": false, "/b/a": false,
	} {
		if _, _, err := s3.ParseURL(url); (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
	}
	for endpoint, ok := range map[string]bool{
		"https://h": true, "http://h:80/": true, "h:80": false, "ftp://h": false, "https://h/path": false, "https://u:p@h": false,
	} {
		if err := (s3.Server{Endpoint: endpoint}).Check(); (err == nil) != ok {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}
