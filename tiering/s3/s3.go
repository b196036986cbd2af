// Package s3 keeps a cold tier's segments as objects in a bucket that speaks
// Amazon's S3.
//
// An FS is the disk of such a tier. A file is created, appended to and synced in a
// local directory, the spool; Rename uploads it, whole and checked, as an
// object that never changes, and only then takes it out of the spool. So what was
// synced is durable in one place or the other at any moment, and an object is
// either absent or whole:
//
//	in the spool     [Create, WriteAt, Datasync]
//	   | Rename: upload, write-once; look at what is there; remove from the spool
//	object           [ReadAt by range]
//	   | Remove
//	gone
//
// A crash before the file is out of the spool leaves it there, perhaps beside its
// object; another Rename compares the two and goes on.
//
// Locks: file.mu, held over reads of the spool, before FS.mu.
package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/quarxtor/quarxfs/tiering/disk"
	"github.com/quarxtor/quarxfs/tiering/keyfile"
)

// A Server says on which server objects are. It holds no secret.
type Server struct {
	Endpoint    string `json:"endpoint"`              // URL of the server: https, or http
	Region      string `json:"region,omitempty"`      // the server is asked when empty
	Insecure    bool   `json:"insecure,omitempty"`    // any certificate will do
	CA          string `json:"ca,omitempty"`          // absolute path of certificates to trust besides the system's, in PEM
	Credentials string `json:"credentials,omitempty"` // absolute path of the file with the keys; the environment has them when empty
}

// Config is what an FS is made from.
type Config struct {
	Server
	URL      string // s3://bucket/prefix
	Spool    string // local directory; it is made if missing
	Local    disk.FS
	ReadOnly bool          // nothing is changed in the bucket; nor is Local to let anything be
	Timeout  time.Duration // most that reading may take; 0: 20 s
}

const (
	defaultTimeout = 20 * time.Second
	// partSize is what is uploaded at once of a large segment, in bytes. As much
	// is in memory.
	partSize = 16 << 20
	// retries is how often a request is sent that is refused for now, or that
	// breaks off. Between two of them is up to 0.2 s, 0.4 s, 0.8 s, then 1 s.
	retries = 6
	// uploadPatience is how many times Timeout an upload may stand still.
	uploadPatience = 4
)

// An FS is a disk.Remote.
type FS struct {
	c      Config
	bucket string
	prefix string // with the slash at its end, or empty
	core   minio.Core
	up     context.Context // of uploads
	stop   context.CancelFunc
	mu     struct {
		sync.Mutex
		open map[string]map[*file]struct{} // files in the spool
	}
}

// ParseURL takes s3://bucket/prefix apart.
func ParseURL(s string) (bucket, prefix string, err error) {
	rest, ok := strings.CutPrefix(s, "s3://")
	bucket, prefix, _ = strings.Cut(rest, "/")
	if !ok || bucket == "" || prefix != "" && path.Clean("/"+prefix) != "/"+strings.TrimSuffix(prefix, "/") {
		return "", "", fmt.Errorf("%q is not like s3://bucket/prefix", s)
	}
	if prefix != "" {
		prefix = strings.TrimSuffix(prefix, "/") + "/"
	}
	return bucket, prefix, nil
}

// IsURL tells the URL of an S3 tier from a directory.
func IsURL(s string) bool { return strings.HasPrefix(s, "s3://") }

// Check reports settings that make no sense.
func (p Server) Check() error {
	u, err := url.Parse(p.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("endpoint %q: give a URL such as https://s3.example.com", p.Endpoint)
	}
	if u.User != nil {
		return errors.New("the endpoint has a user in it: keys come from a file or the environment")
	}
	for _, f := range []string{p.CA, p.Credentials} {
		if f != "" && !filepath.IsAbs(f) {
			return fmt.Errorf("%s: give a path that starts with /", f)
		}
	}
	return nil
}

// New makes an FS. It asks the server nothing yet.
func New(c Config) (*FS, error) {
	f := &FS{c: c}
	if f.c.Timeout == 0 {
		f.c.Timeout = defaultTimeout
	}
	if f.c.Local == nil {
		f.c.Local = disk.OS()
	}
	var err error
	if f.bucket, f.prefix, err = ParseURL(c.URL); err != nil {
		return nil, err
	}
	if err := c.Server.Check(); err != nil {
		return nil, err
	}
	if f.core.Client, err = f.client(); err != nil {
		return nil, fmt.Errorf("%s: %w", c.URL, err)
	}
	// Uploads belong to the FS and not to who asked: Interrupt ends all of them at once.
	f.up, f.stop = context.WithCancel(context.Background())
	f.mu.open = map[string]map[*file]struct{}{}
	return f, nil
}

func (f *FS) client() (*minio.Client, error) {
	u, err := url.Parse(f.c.Endpoint)
	if err != nil {
		return nil, err
	}
	secure := u.Scheme == "https"
	tr, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, err
	}
	tr.ResponseHeaderTimeout = uploadPatience * f.c.Timeout // reads have less
	if secure {
		if err := trust(tr.TLSClientConfig, f.c.Server); err != nil {
			return nil, err
		}
	}
	return minio.New(u.Host, &minio.Options{
		Creds: credentials.New(keys{f.c.Credentials}), Secure: secure, Region: f.c.Region,
		Transport: tr, MaxRetries: retries,
	})
}

func trust(c *tls.Config, p Server) error {
	c.InsecureSkipVerify = p.Insecure
	if p.CA == "" {
		return nil
	}
	pem, _, err := keyfile.Read(p.CA)
	if err != nil {
		return err
	}
	if c.RootCAs == nil {
		if c.RootCAs, err = x509.SystemCertPool(); err != nil {
			return err
		}
	}
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s: no certificate in it", p.CA)
	}
	return nil
}

// Interrupt implements disk.Remote.
func (f *FS) Interrupt() { f.stop() }

func (f *FS) key(name string) string { return f.prefix + filepath.Base(name) }

// spool returns where a file is while it is written.
func (f *FS) spool(name string) string { return filepath.Join(f.c.Spool, filepath.Base(name)) }

// MkdirAll makes the spool; buckets have no directories.
func (f *FS) MkdirAll(string) error { return f.c.Local.MkdirAll(f.c.Spool) }

// SyncDir makes the names in the spool durable; those of objects are already.
func (f *FS) SyncDir(string) error { return f.c.Local.SyncDir(f.c.Spool) }

// List returns what is in the spool and in the bucket, where a file that was
// just uploaded may be in both under two names. Uploads that a crash broke off
// are removed: some servers charge for them.
func (f *FS) List(string) ([]disk.Info, error) {
	list, err := f.c.Local.List(f.c.Spool)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// A bucket may have many pages of objects: each is given time, not the whole.
	ctx, touch, done := patience(context.Background(), uploadPatience*f.c.Timeout, 0)
	defer done()
	for o := range f.core.Client.ListObjects(ctx, f.bucket, minio.ListObjectsOptions{Prefix: f.prefix}) {
		if o.Err != nil {
			return nil, f.fail(ctx, "list", "", o.Err)
		}
		touch()
		if name := strings.TrimPrefix(o.Key, f.prefix); name != "" {
			list = append(list, disk.Info{Name: strings.TrimSuffix(name, "/"), Size: o.Size})
		}
	}
	if !f.c.ReadOnly {
		f.dropBroken(ctx, touch)
	}
	slices.SortFunc(list, func(a, b disk.Info) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// dropBroken removes parts of uploads. It may not be allowed to, and what it
// leaves harms nothing.
func (f *FS) dropBroken(ctx context.Context, touch func()) {
	for u := range f.core.Client.ListIncompleteUploads(ctx, f.bucket, f.prefix, false) {
		if u.Err != nil {
			return
		}
		touch()
		_ = f.core.AbortMultipartUpload(ctx, f.bucket, u.Key, u.UploadID)
	}
}

// Remove removes a file from the spool or an object.
func (f *FS) Remove(name string) error {
	err := f.c.Local.Remove(f.spool(name))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ctx, _, done := patience(context.Background(), 0, f.c.Timeout/2)
	defer done()
	// S3 says yes whether there was an object or not.
	return f.fail(ctx, "remove", name, f.core.RemoveObject(ctx, f.bucket, f.key(name), minio.RemoveObjectOptions{}))
}

// fail makes a request's error one of the disk: fs.ErrNotExist for an object that
// is not there, disk.ErrUnreachable where no server answered.
func (f *FS) fail(ctx context.Context, op, name string, err error) error {
	if err == nil {
		return nil
	}
	at := &fs.PathError{Op: op, Path: "s3://" + f.bucket + "/" + f.prefix, Err: err}
	if name != "" {
		at.Path = "s3://" + f.bucket + "/" + f.key(name)
	}
	// Our own patience ended: the server is there or not, but it did not answer.
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errDone) {
		at.Err = fmt.Errorf("%w: %w", disk.ErrUnreachable, cause)
		return at
	}
	var answer minio.ErrorResponse
	// What is no answer of a server comes from the way there.
	if !errors.As(err, &answer) {
		at.Err = fmt.Errorf("%w: %w", disk.ErrUnreachable, err)
		return at
	}
	switch answer.Code {
	case minio.NoSuchKey:
		at.Err = fs.ErrNotExist
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken", "InvalidToken":
		at.Err = fmt.Errorf("%s refuses the credentials: %s: %s; give keys that may list, read and write in bucket %s",
			f.c.Endpoint, answer.Code, answer.Message, f.bucket)
	case minio.NoSuchBucket:
		at.Err = fmt.Errorf("%s has no bucket %s: make it, or correct its name", f.c.Endpoint, f.bucket)
	default:
		at.Err = fmt.Errorf("%s answers %s: %s (HTTP %d)", f.c.Endpoint, answer.Code, answer.Message, answer.StatusCode)
	}
	return at
}

var errDone = errors.New("done")

// patience returns a context that ends when touch was not called for so long, or
// when the whole time is over; 0 is no limit.
func patience(parent context.Context, idle, whole time.Duration) (ctx context.Context, touch, done func()) {
	ctx, cancel := context.WithCancelCause(parent)
	var timers []*time.Timer
	touch = func() {}
	if idle > 0 {
		t := time.AfterFunc(idle, func() { cancel(fmt.Errorf("nothing came or went for %v", idle)) })
		timers = append(timers, t)
		touch = func() { t.Reset(idle) }
	}
	if whole > 0 {
		timers = append(timers, time.AfterFunc(whole, func() { cancel(fmt.Errorf("it took longer than %v", whole)) }))
	}
	return ctx, touch, func() {
		for _, t := range timers {
			t.Stop()
		}
		cancel(errDone)
	}
}
