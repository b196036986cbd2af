package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/quarxtor/quarxfs/tools/serve"
)

// A report is what --json prints. Figures that do not apply are left out.
type report struct {
	Host    host             `json:"host"`
	Scale   float64          `json:"scale"`
	Rounds  int              `json:"rounds"`
	Seed    uint64           `json:"seed"`
	Targets []string         `json:"targets"` // the first is the reference
	Rows    []row            `json:"rows"`
	Peak    map[string]int64 `json:"daemon_peak_rss_bytes"` // over the whole run
	Samples []sample         `json:"samples"`
}

type host struct {
	Kernel string `json:"kernel"`
	CPUs   int    `json:"cpus"`
	Go     string `json:"go"`
	Time   string `json:"time"`
}

// A row is one workload on one target, over all rounds.
type row struct {
	Workload string  `json:"workload"`
	Target   string  `json:"target"`
	Seconds  spread  `json:"seconds"`
	Rate     float64 `json:"rate"` // median, in Unit per second
	Unit     string  `json:"unit"` // "MB" or "ops"
	// Ratio is the reference's time over this target's, of each round; over 1
	// is faster than the reference.
	Ratio       *spread  `json:"ratio,omitempty"`
	Aim         float64  `json:"aim,omitempty"`
	CPU         float64  `json:"daemon_cpu_seconds,omitempty"` // median
	PeakRSS     int64    `json:"daemon_peak_rss_bytes,omitempty"`
	MessagesOp  *float64 `json:"fuse_messages_per_op,omitempty"`
	AimMessages float64  `json:"aim_fuse_messages_per_op,omitempty"`
	Skipped     string   `json:"skipped,omitempty"`
}

// summarize makes a row for each workload and target, in their order. The aims
// are QuarXFS's, and those in time are over the loopback.
func summarize(workloads []workload, places []*serve.Target, samples []sample) []row {
	var rows []row
	for _, w := range workloads {
		reference := pick(samples, w.name, places[0].Name)
		for i, p := range places {
			of := pick(samples, w.name, p.Name)
			// Interrupted before its turn.
			if len(of) == 0 {
				continue
			}
			r := rowOf(of)
			if i > 0 && r.Skipped == "" {
				r.Ratio = ratio(reference, of)
			}
			if p.Kind == "quarxfs" {
				r.AimMessages = w.aimMessages
				// An aim is a ratio to the loopback and means nothing beside another reference.
				if places[0].Kind == "loopback" {
					r.Aim = w.aim
				}
			}
			rows = append(rows, r)
		}
	}
	return rows
}

func pick(samples []sample, workload, target string) []sample {
	var of []sample
	for _, s := range samples {
		if s.Workload == workload && s.Target == target {
			of = append(of, s)
		}
	}
	return of
}

func rowOf(of []sample) row {
	r := row{Workload: of[0].Workload, Target: of[0].Target, Unit: "ops", Skipped: of[0].Skipped}
	var seconds, cpu []float64
	for _, s := range of {
		// What is skipped once is skipped each round, for the same reason.
		if s.Skipped != "" {
			return r
		}
		seconds, cpu = append(seconds, s.Seconds), append(cpu, s.CPU)
		r.PeakRSS = max(r.PeakRSS, s.PeakRSS)
		if s.Messages != nil && s.Ops > 0 {
			perOp := float64(total(s.Messages)) / float64(s.Ops)
			r.MessagesOp = &perOp
		}
	}
	r.Seconds, r.CPU = spreadOf(seconds), spreadOf(cpu).Median
	done := float64(of[0].Ops)
	// A rate of many small calls is a rate of calls; of large ones, of bytes.
	if of[0].Bytes > 0 && of[0].Bytes/max(1, of[0].Ops) > 64*kib {
		r.Unit, done = "MB", float64(of[0].Bytes)/1e6
	}
	r.Rate = done / r.Seconds.Median
	return r
}

// ratio compares round with round, which cancels what changes slowly.
func ratio(reference, of []sample) *spread {
	var ratios []float64
	for _, s := range of {
		for _, ref := range reference {
			if ref.Round == s.Round && ref.Skipped == "" && s.Seconds > 0 {
				ratios = append(ratios, ref.Seconds/s.Seconds)
			}
		}
	}
	if len(ratios) == 0 {
		return nil
	}
	r := spreadOf(ratios)
	return &r
}

func total(messages map[string]int64) int64 {
	var n int64
	for _, c := range messages {
		n += c
	}
	return n
}

func (r report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

func (r report) writeText(w io.Writer) error {
	fmt.Fprintf(w, "Linux %s, %d CPUs, %s; %d rounds at scale %g, seed %d\n", r.Host.Kernel, r.Host.CPUs, r.Host.Go, r.Rounds, r.Scale, r.Seed)
	fmt.Fprintf(w, "ratio: time of %s / time of the target, median of the rounds (least .. most); over 1 is faster\n\n", r.Targets[0])
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "workload\ttarget\tmedian\tspread\trate\tratio\taim\tFUSE msg/op\tCPU s\tpeak MiB")
	last := ""
	for _, row := range r.Rows {
		name := row.Workload
		// Named once, above the targets that follow.
		if name == last {
			name = ""
		}
		last = row.Workload
		fmt.Fprintln(tw, name+"\t"+strings.Join(row.cells(), "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, t := range r.Targets {
		if peak := r.Peak[t]; peak > 0 {
			fmt.Fprintf(w, "%s: peak memory over the whole run %d MiB\n", t, peak/mib)
		}
	}
	return nil
}

func (r row) cells() []string {
	if r.Skipped != "" {
		return []string{r.Target, "skipped: " + r.Skipped}
	}
	cells := []string{
		r.Target,
		fmt.Sprintf("%.3f s", r.Seconds.Median),
		fmt.Sprintf("±%.0f%%", r.Seconds.percent()),
		fmt.Sprintf("%s %s/s", significant(r.Rate), r.Unit),
		// Filled in below, where there is such a figure; zero would look measured.
		"", "", "n/a", "n/a", "n/a",
	}
	if r.Ratio != nil {
		cells[4] = fmt.Sprintf("%.2f (%.2f .. %.2f)", r.Ratio.Median, r.Ratio.Min, r.Ratio.Max)
	}
	if r.Aim > 0 && r.Ratio != nil {
		cells[5] = verdict(r.Aim, r.Ratio.Median >= r.Aim)
	}
	if r.MessagesOp != nil {
		cells[6] = fmt.Sprintf("%.3g", *r.MessagesOp)
		if r.AimMessages > 0 {
			cells[6] += " of " + verdict(r.AimMessages, *r.MessagesOp <= r.AimMessages)
		}
	}
	if r.PeakRSS > 0 {
		cells[7] = fmt.Sprintf("%.2f", r.CPU)
		cells[8] = fmt.Sprint(r.PeakRSS / mib)
	}
	return cells
}

func verdict(aim float64, met bool) string {
	if met {
		return fmt.Sprintf("%g met", aim)
	}
	return fmt.Sprintf("%g MISSED", aim)
}

// significant prints three digits or the whole number.
func significant(f float64) string {
	if math.Abs(f) >= 100 {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.3g", f)
}
