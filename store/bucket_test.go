package store

import (
	"bytes"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quarxtor/quarxfs/store/chunk"
	"github.com/quarxtor/quarxfs/tiering"
	"github.com/quarxtor/quarxfs/tiering/s3/s3test"
)

// openBucket opens a store with a cold tier in a bucket behind a proxy.
func openBucket(t *testing.T) (s *Store, server *s3test.Server, p *s3test.Proxy) {
	t.Helper()
	server = s3test.Start(t)
	p = s3test.NewProxy(t, server.URL)
	t.Setenv("QUARXFS_S3_ACCESS_KEY_ID", s3test.AccessKey)
	t.Setenv("QUARXFS_S3_SECRET_ACCESS_KEY", s3test.SecretKey)
	dir := filepath.Join(t.TempDir(), "store")
	c := smallConfig()
	c.Chunker, c.SegmentSize = chunk.Default(), 1<<20
	if err := Init(dir, c); err != nil {
		t.Fatal(err)
	}
	s = reopenBucket(t, dir)
	if err := s.AddBucket("s3://"+s3test.Bucket+"/a/b", S3Server{Endpoint: p.URL}); err != nil {
		t.Fatal(err)
	}
	return s, server, p
}

func reopenBucket(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{SweepInterval: -1, Ballast: -1, MemTable: 8 << 20, CacheBytes: 1, ColdRetry: 20 * time.Millisecond, ColdTimeout: 4 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func requireColdReach(t *testing.T, s *Store, want error) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := s.tiers.Reach(tiering.Cold)
		if errors.Is(err, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("reach: %v, want %v", err, want)
		}
	}
}

func TestMoveToABucketAndBack(t *testing.T) {
	s, server, p := openBucket(t)
	kept := ingestWords(t, s, "a", "b", "c", "d", "e")
	ids, _ := dataBlocks(t, s)
	moved, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{})
	if err != nil || moved.Blocks != int64(len(ids)) {
		t.Fatalf("moved %+v of %d, %v", moved, len(ids), err)
	}
	requireObjects(t, s, kept)
	requireSound(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopenBucket(t, s.Dir())
	requireColdReach(t, s, nil)
	requireObjects(t, s, kept)

	server.Kill() // what is hot goes on, what is cold comes back by itself
	refused := 0
	for _, id := range ids { // some may have been read ahead, or wait in the spool
		if _, err := s.Get(ctx, id); errors.Is(err, ErrUnavailable) {
			refused++
		} else if err != nil {
			t.Errorf("get without a server: %v", err)
		}
	}
	if refused == 0 {
		t.Error("all of the cold tier was read without a server")
	}
	if _, err := s.Ingest(ctx, bytes.NewReader([]byte("hot")), "hot"); err != nil {
		t.Error(err)
	}
	if _, err := s.Move(ctx, tiering.Cold, ids, MoveOptions{}); err != nil && !errors.Is(err, ErrUnavailable) {
		t.Errorf("move without a server: %v", err)
	}
	server.Run(t)
	requireColdReach(t, s, nil)
	requireObjects(t, s, kept)

	var asked atomic.Int64
	p.Set(func(*s3test.Request) s3test.Fault { asked.Add(1); return s3test.Fault{} })
	if moved, err = s.Drain(ctx, MoveOptions{}); err != nil || moved.Blocks != int64(len(ids)) {
		t.Fatalf("drained %+v of %d, %v", moved, len(ids), err)
	}
	if n := asked.Load(); n > int64(len(ids))/2 {
		t.Errorf("%d requests for %d blocks: nothing was read ahead", n, len(ids))
	}
	requireObjects(t, s, kept)
	if _, err := s.Compact(ctx, CompactOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	requireSound(t, s)
	if err := s.RemoveCold(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopenBucket(t, s.Dir())
	requireObjects(t, s, kept)
}

// TestServerFailsDuringMoves: from the nth request on the server does not answer, or
// does what it is asked and does not say so, until the store is opened again.
func TestServerFailsDuringMoves(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 4
	}
	s, _, p := openBucket(t)
	kept := ingestWords(t, s, "a", "b", "c")
	ids, _ := dataBlocks(t, s)
	for round := range rounds {
		var n atomic.Int64
		p.Set(func(*s3test.Request) s3test.Fault {
			if n.Add(1) <= int64(round) {
				return s3test.Fault{}
			}
			return s3test.Fault{Drop: round%2 == 0, Late: round%2 == 1}
		})
		to := tiering.Cold
		if round%4 >= 2 {
			to = tiering.Hot
		}
		_, err := s.Move(ctx, to, ids, MoveOptions{})
		if err != nil && !errors.Is(err, ErrUnavailable) {
			t.Logf("round %d: %v", round, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		p.Set(nil)
		s = reopenBucket(t, s.Dir())
		requireColdReach(t, s, nil)
		requireObjects(t, s, kept)
		requireSound(t, s)
	}
}
