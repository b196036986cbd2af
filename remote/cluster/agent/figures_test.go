package agent

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

// Volumes are in the figures and on the page; what is unknown has no figure, and is "?".
func TestVolumesShown(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	s := health.Judge(health.Facts{
		AsOf: now,
		Volumes: []cluster.Volume{
			{Name: "home", ID: "1", Home: "n1", Vaults: []string{"n1"}, RPO: 60, Epoch: 2, Copies: 2},
			{Name: "mail", ID: "2", Home: "n2", Vaults: []string{"n2"}, RPO: 60, Epoch: 1, Copies: 2},
		},
		Nodes: []health.NodeFacts{
			{Node: cluster.Node{Name: "n2"}, Up: true},
			{Node: cluster.Node{Name: "n1"}, Up: true, Said: &health.Answer{
				Homes:  []health.Home{{ID: "1", Epoch: 2, Online: true, Bytes: 5 << 20}},
				Copies: []health.Copy{{ID: "1", Epoch: 2, Domain: "d", Bad: 3, Newest: &health.Snapshot{Name: "cluster-2-7", Created: now.Add(-9 * time.Second)}}},
			}},
		},
	})
	r := prometheus.NewRegistry()
	r.MustRegister(figures(s))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text, page bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{
		`quarxfs_volume_protected{volume="home"} 1`, `quarxfs_volume_lag_seconds{volume="home"} 9`, `quarxfs_volume_online{volume="home"} 1`,
		`quarxfs_volume_rpo_seconds{volume="mail"} 60`, `quarxfs_volume_epoch{volume="home"} 2`, `quarxfs_cluster_vault_missing_blocks{node="n1"} 3`,
	} {
		if !strings.Contains(text.String(), want+"\n") {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	for _, not := range []string{`_protected{volume="mail"}`, `_lag_seconds{volume="mail"}`, `_online{volume="mail"}`, `_missing_blocks{node="n2"}`} {
		if strings.Contains(text.String(), not) {
			t.Errorf("%s is known", not)
		}
	}
	if err := pageTemplate.Execute(&page, struct {
		health.Status
		Asked string
	}{s, "n1"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"n1: cluster-2-7, 9s old", "n2: ?", "5.0 MiB", "BAD_BLOCKS", "VOLUME_UNKNOWN"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("no %q on the page\n%s", want, page.String())
		}
	}
}
