package store_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/tiering/segment"
)

// ExampleOpen makes a store, puts a block into it, and refers to it so that
// the sweep leaves it alone.
func ExampleOpen() {
	tmp, err := os.MkdirTemp("", "quarxfs")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, "store")
	if err := store.Init(dir, store.DefaultConfig()); err != nil {
		log.Fatal(err)
	}
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	release := s.Hold() // no sweep between Put and Ref
	id, err := s.Put(segment.Data, []byte("each distinct block once"))
	if err != nil {
		log.Fatal(err)
	}
	err = s.Update(func() error { s.Ref(id, 1); return nil })
	release()
	if err == nil {
		err = s.Commit() // durable from here on
	}
	if err != nil {
		log.Fatal(err)
	}
	plain, err := s.Get(context.Background(), id)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", id.Short(), plain)
	// Output: 3e1b409db025: each distinct block once
}

// ExampleStore_Ingest keeps two versions of a text as objects.
func ExampleStore_Ingest() {
	tmp, err := os.MkdirTemp("", "quarxfs")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, "store")
	if err := store.Init(dir, store.DefaultConfig()); err != nil {
		log.Fatal(err)
	}
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	ctx := context.Background()
	poem := strings.Repeat("a rose is ", 300) + "a rose"
	for _, name := range []string{"poem/first", "poem/second"} {
		if _, err := s.Ingest(ctx, strings.NewReader(poem), name); err != nil {
			log.Fatal(err)
		}
	}
	if err := s.Fetch(ctx, "poem/second", 1000, 16, os.Stdout); err != nil {
		log.Fatal(err)
	}
	fmt.Println()
	totals := s.Stats().Totals
	fmt.Println(totals.Objects.Count, "objects,", totals.Blocks[segment.Data], "block, dedup ratio", totals.DedupRatio())
	// Output:
	// a rose is a rose
	// 2 objects, 1 block, dedup ratio 2
}
