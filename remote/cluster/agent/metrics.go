package agent

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quarxtor/quarxfs/remote/cluster/health"
)

// metrics answers with the status in figures. What is unknown has no figure: a 0 would be a lie.
func (a *Agent) metrics(w http.ResponseWriter, r *http.Request) {
	s, err := a.status(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	own := prometheus.NewRegistry()
	own.MustRegister(figures(s), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	promhttp.HandlerFor(own, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// figures collect one status.
type figures health.Status

var (
	stateMetric  = desc("cluster_state", "How the cluster is: 0 OK, 1 WARN, 2 ERR.")
	decidesDesc  = desc("cluster_decides", "1 while the register has a quorum.")
	votersMetric = desc("cluster_voters", "Nodes that vote.")
	votersUp     = desc("cluster_voters_up", "Nodes that vote and are up.")
	nodesMetric  = desc("cluster_nodes", "Nodes that are up, that are down, and of which it is unknown.", "state")
	checksMetric = desc("cluster_checks", "Things that are not as they should be, by severity.", "severity")
	checkMetric  = desc("cluster_check", "Things that are not as they should be, by code.", "code", "severity")
	heartbeatAge = desc("cluster_heartbeat_age_seconds", "How long ago the node was last known to be alive.", "node")
	repairsDesc  = desc("cluster_repairs", "Volumes that lack a copy, by whether one is being made.", "state")
	repairHeld   = desc("cluster_repair_held", "1 while no copy is made or removed, as while too many nodes are down.")
	protected    = desc("volume_protected", "1 if a vault has a snapshot of the volume that is no older than its RPO.", "volume")
	volumeLag    = desc("volume_lag_seconds", "Age of the newest snapshot of the volume at a vault.", "volume")
	volumeRPO    = desc("volume_rpo_seconds", "How old the newest snapshot at a vault may be.", "volume")
	volumeOnline = desc("volume_online", "1 while a daemon of its home has the volume open.", "volume")
	volumeEpoch  = desc("volume_epoch", "How often the volume got a new home, from 1 on.", "volume")
	vaultBad     = desc("cluster_vault_missing_blocks", "Blocks of the node's vault that are missing or damaged.", "node")
	spaceFree    = desc("cluster_node_free_bytes", "Free bytes of the disk of the node's directory.", "node")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("quarxfs_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector: it is an unchecked one, as nodes come and go.
func (f figures) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (f figures) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	decides := 0.0
	if f.Control.Decides {
		decides = 1
	}
	gauge(stateMetric, float64(f.State.Rank()))
	gauge(decidesDesc, decides)
	gauge(votersMetric, float64(f.Control.Voters))
	gauge(votersUp, float64(f.Control.Up))
	// Each state has a figure also when it is 0: an alarm on a series that is gone never rings.
	states := map[string]int{"up": 0, "down": 0, "unknown": 0}
	for _, n := range f.Nodes {
		states[n.Known()]++
		if n.Heard != nil {
			gauge(heartbeatAge, max(0, f.AsOf.Sub(*n.Heard).Seconds()), n.Name)
		}
		if n.Bad != nil {
			gauge(vaultBad, float64(*n.Bad), n.Name)
		}
		if n.Free != nil {
			gauge(spaceFree, float64(*n.Free), n.Name)
		}
	}
	for _, v := range f.Volumes {
		flag := func(d *prometheus.Desc, is *bool) {
			if is != nil {
				value := 0.0
				if *is {
					value = 1
				}
				gauge(d, value, v.Name)
			}
		}
		flag(protected, v.Protected)
		flag(volumeOnline, v.Online)
		gauge(volumeRPO, float64(v.RPO), v.Name)
		gauge(volumeEpoch, float64(v.Epoch), v.Name)
		if v.Lag != nil {
			gauge(volumeLag, *v.Lag, v.Name)
		}
	}
	repairs := map[string]int{"making": 0, "waiting": 0, "stalled": 0}
	for _, r := range f.Repair {
		switch {
		case r.Stalled:
			repairs["stalled"]++
		case r.Node == "":
			repairs["waiting"]++
		default:
			repairs["making"]++
		}
	}
	for state, count := range repairs {
		gauge(repairsDesc, float64(count), state)
	}
	held := 0.0
	if f.Held != "" {
		held = 1
	}
	gauge(repairHeld, held)
	for state, count := range states {
		gauge(nodesMetric, float64(count), state)
	}
	severities := map[health.Level]int{health.Warn: 0, health.Err: 0}
	type code struct {
		code  string
		level health.Level
	}
	codes := make(map[code]int)
	for _, c := range f.Checks {
		severities[c.Level]++
		codes[code{c.Code, c.Level}]++
	}
	for level, count := range severities {
		gauge(checksMetric, float64(count), string(level))
	}
	for c, count := range codes {
		gauge(checkMetric, float64(count), c.code, string(c.level))
	}
}
