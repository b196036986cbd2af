package remote_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/remotetest"
	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store"
)

// scrape returns what /metrics says, and the same parsed.
func scrape(t *testing.T, url string) ([]byte, map[string]*dto.MetricFamily) {
	t.Helper()
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", resp.Status, err, text)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return text, families
}

// value returns a counter, a gauge, or the count of a histogram; label is the value of
// its only label, or empty.
func value(t *testing.T, families map[string]*dto.MetricFamily, name, label string) float64 {
	t.Helper()
	for _, m := range families[name].GetMetric() {
		if label != "" && (len(m.GetLabel()) != 1 || m.GetLabel()[0].GetValue() != label) {
			continue
		}
		switch families[name].GetType() {
		case dto.MetricType_COUNTER:
			return m.GetCounter().GetValue()
		case dto.MetricType_HISTOGRAM:
			return float64(m.GetHistogram().GetSampleCount())
		}
		return m.GetGauge().GetValue()
	}
	t.Errorf("there is no %s{%q}", name, label)
	return 0
}

func TestMetrics(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(dir, store.DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(dir, store.Options{CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	n := remote.NewLocal(st, remote.Environment{
		Volume: func() remote.VolumeStats { return remote.VolumeStats{Inodes: 12} },
		FUSE: func() remote.FUSE {
			var timer store.Timer
			timer.Add(3e6)
			return remote.FUSE{Requests: map[string]uint64{"read": 1, "forget": 5}, Latencies: map[string]store.Latency{"read": timer.Summary()}}
		},
	})
	srv := httptest.NewServer(remote.ControlHandler(n, slog.New(slog.DiscardHandler)))
	t.Cleanup(srv.Close)

	text, before := scrape(t, srv.URL)
	problems, err := promlint.New(bytes.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("the linter says %v, %v", problems, err)
	}
	if value(t, before, "quarxfs_cache_misses_total", "") != 0 || value(t, before, "quarxfs_tier_reachable", "hot") != 1 {
		t.Errorf("a new store: %s", text)
	}

	ctx := t.Context()
	if err := n.AddCold(ctx, filepath.Join(t.TempDir(), "cold"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Put(ctx, "a", bytes.NewReader(remotetest.RandomBytes(1, 8<<20))); err != nil {
		t.Fatal(err)
	}
	var ids []store.ID
	err = n.ListBlocks(ctx, remote.BlockFilter{Kinds: []string{"data"}}, func(b remote.BlockInfo) error { ids = append(ids, b.ID); return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, tier := range []string{"cold", "hot", "cold"} {
		to, _ := store.ParseTier(tier)
		if _, err := st.Move(ctx, to, ids, store.MoveOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Get(ctx, "a", 0, -1, io.Discard); err != nil {
		t.Fatal(err)
	}
	_, after := scrape(t, srv.URL)
	blocks := float64(len(ids))
	for _, c := range []struct {
		name, label string
		low, high   float64
	}{
		{"quarxfs_objects", "", 1, 1},
		{"quarxfs_blocks", "data", blocks, blocks},
		{"quarxfs_logical_bytes", "", 8 << 20, 8 << 20},
		{"quarxfs_demoted_blocks_total", "", 2 * blocks, 2 * blocks},
		{"quarxfs_promoted_blocks_total", "", blocks, blocks},
		{"quarxfs_promoted_bytes_total", "", 8 << 20, 9 << 20},
		{"quarxfs_cache_misses_total", "", 1, blocks}, // others were read ahead
		{"quarxfs_cache_evicted_blocks_total", "", 1, 2 * blocks},
		{"quarxfs_cache_limit_bytes", "", 1 << 20, 1 << 20},
		{"quarxfs_cache_bytes", "", 1, 1 << 20},
		{"quarxfs_cache_estimated_hit_ratio", "524288", 0, 0}, // all was read once
		{"quarxfs_cache_estimated_hit_ratio", "8388608", 0, 0},
		{"quarxfs_tier_read_duration_seconds", "cold", 2 * blocks, 4 * blocks}, // one move back, and the object
		{"quarxfs_tier_write_duration_seconds", "hot", 2 * blocks, 3 * blocks},
		{"quarxfs_commit_duration_seconds", "", 1, 100},
		{"quarxfs_database_commit_duration_seconds", "", 1, 100},
		{"quarxfs_tier_reachable", "cold", 1, 1},
		{"quarxfs_inodes", "", 12, 12},
		{"quarxfs_fuse_requests_total", "forget", 5, 5},
		{"quarxfs_fuse_request_duration_seconds", "read", 1, 1},
		{"process_resident_memory_bytes", "", 1, 1 << 40},
		{"go_goroutines", "", 1, 1 << 20},
	} {
		if got := value(t, after, c.name, c.label); got < c.low || got > c.high {
			t.Errorf("%s{%q} is %v, want %v to %v", c.name, c.label, got, c.low, c.high)
		}
	}
	if n := len(after["quarxfs_cache_estimated_hit_ratio"].GetMetric()); n != 5 {
		t.Errorf("the curve of RAM has %d sizes", n)
	}
	if after["quarxfs_hot_estimated_hit_ratio"] != nil {
		t.Error("there is a curve of the hot tier without a policy")
	}
	h := after["quarxfs_fuse_request_duration_seconds"].GetMetric()[0].GetHistogram()
	for _, b := range h.GetBucket() {
		if want := b.GetUpperBound() >= 0.005; (b.GetCumulativeCount() == 1) != want {
			t.Errorf("up to %v s there are %d", b.GetUpperBound(), b.GetCumulativeCount())
		}
	}
	if h.GetSampleSum() != 0.003 {
		t.Errorf("the sum is %v s", h.GetSampleSum())
	}
}

// TestMetricsAlone: whoever may come there sees nothing else.
func TestMetricsAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(dir, store.DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	f, err := serve.Listen(t.Context(), serve.ListenOptions{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	f.ServeMetrics(remote.NewLocal(st, remote.Environment{}), slog.New(slog.DiscardHandler))
	t.Cleanup(func() { f.Close(t.Context()) })
	if text, _ := scrape(t, f.URL); !strings.Contains(string(text), "\nquarxfs_objects 0\n") {
		t.Errorf("%s", text)
	}
	for _, path := range []string{"/", "/v1/stats", "/debug/pprof/"} {
		resp, err := http.Get(f.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}
