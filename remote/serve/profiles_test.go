package serve

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

func TestContentionProfiles(t *testing.T) {
	mux := http.NewServeMux()
	ProfileRoutes(mux)
	srv := httptest.NewServer(mux)
	defer srv.Close()
	quit := make(chan struct{})
	var contenders sync.WaitGroup
	defer contenders.Wait()
	defer close(quit)
	contenders.Go(func() {
		var contended sync.Mutex
		for {
			select {
			case <-quit:
				return
			default:
			}
			// The runtime does not begin to record in a queue that never ends.
			var round sync.WaitGroup
			for range 4 {
				round.Go(func() { holdForAWhile(&contended) })
			}
			round.Wait()
		}
	})
	for _, name := range []string{"mutex", "block"} {
		resp, err := http.Get(srv.URL + "/debug/pprof/" + name)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s without seconds: %s", name, resp.Status)
		}
		if resp, err = http.Get(srv.URL + "/debug/pprof/" + name + "?seconds=1"); err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			t.Fatalf("%s: %s: %v", name, resp.Status, err)
		}
		profile, err := io.ReadAll(z)
		resp.Body.Close()
		if err != nil || !bytes.Contains(profile, []byte("serve.holdForAWhile")) {
			t.Errorf("%s: %v; the profile of %d bytes does not name who contends", name, err, len(profile))
		}
	}
}

func holdForAWhile(mu *sync.Mutex) {
	mu.Lock()
	defer mu.Unlock()
	time.Sleep(time.Millisecond)
}
