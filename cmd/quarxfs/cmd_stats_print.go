package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/store"
)

const barWidth = 40

// showStats prints stats for people.
func showStats(w io.Writer, s remote.Stats) error {
	var b strings.Builder
	head(&b, s)
	sizes(&b, s)
	blocks(&b, s)
	bars(&b, "Block sizes", s.BlockSizes, func(b remote.Bar) string { return size(int64(b.From)) + " - " + size(int64(b.To)) })
	bars(&b, "Entropy, bits a byte", s.Entropies, func(b remote.Bar) string { return fmt.Sprintf("%.1f - %.1f", b.From, b.To) })
	bars(&b, "References to a block", s.Refs, countLabel)
	tiers(&b, s)
	latencies(&b, s)
	_, err := io.WriteString(w, b.String())
	return err
}

func head(w io.Writer, s remote.Stats) {
	fmt.Fprintf(w, "Store       %s\n", s.Store.Dir)
	fmt.Fprintf(w, "Blocks of   %s (%s), compression %s\n", humanize.IBytes(uint64(s.Store.Chunker.Avg)), s.Store.Chunker.Name, s.Store.Compression)
	if s.Daemon.PID != 0 {
		up := time.Duration(s.Daemon.Uptime * float64(time.Second)).Round(time.Second)
		where := "Mounted at  " + s.Mountpoint
		if s.Mountpoint == "" {
			where = "Served"
		}
		fmt.Fprintf(w, "%s by process %d for %v\n", where, s.Daemon.PID, up)
	} else {
		fmt.Fprintln(w, "Not mounted")
	}
}

func sizes(w io.Writer, s remote.Stats) {
	total := 0.0
	if s.Stored > 0 {
		total = float64(s.Referenced) / float64(s.Stored)
	}
	t := newTable("Space", text.AlignLeft, text.AlignRight, text.AlignRight, text.AlignLeft)
	t.AppendRow(table.Row{"Logical", size(s.Logical), "", fmt.Sprintf("%s inodes, %s objects", humanize.Comma(s.Volume.Inodes), humanize.Comma(s.Objects))})
	t.AppendRow(table.Row{"Unique", size(s.Unique), times(s.DedupRatio), "by deduplication"})
	t.AppendRow(table.Row{"Stored", size(s.Stored), times(total), fmt.Sprintf("in all; blocks compress %s", times(s.CompressionRatio))})
	t.AppendRow(table.Row{"Reclaimable", size(s.Unreferenced.Stored), "", humanize.Comma(s.Unreferenced.Count) + " blocks"})
	t.AppendRow(table.Row{"Free", size(s.Disk.Free), "", "of " + size(s.Disk.Total)})
	section(w, t)
}

func times(x float64) string {
	if x == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2fx", x)
}

func blocks(w io.Writer, s remote.Stats) {
	t := newTable("", text.AlignLeft, text.AlignRight, text.AlignRight, text.AlignRight)
	t.AppendHeader(table.Row{"Blocks", "Count", "Plain", "Stored"})
	kinds := slices.SortedFunc(maps.Keys(s.Blocks), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.Blocks[b].Count, s.Blocks[a].Count), cmp.Compare(a, b))
	})
	for _, k := range kinds {
		if b := s.Blocks[k]; b.Count > 0 {
			t.AppendRow(table.Row{k, humanize.Comma(b.Count), size(b.Raw), size(b.Stored)})
		}
	}
	if t.Length() > 0 {
		section(w, t)
	}
}

func bars(w io.Writer, title string, all []remote.Bar, label func(remote.Bar) string) {
	if len(all) == 0 {
		return
	}
	most := int64(1)
	for _, b := range all {
		most = max(most, b.Count)
	}
	t := newTable(title, text.AlignRight, text.AlignRight, text.AlignLeft)
	for _, b := range all {
		width := int((b.Count*barWidth + most - 1) / most)
		t.AppendRow(table.Row{label(b), humanize.Comma(b.Count), strings.Repeat("#", width)})
	}
	section(w, t)
}

func countLabel(b remote.Bar) string {
	if b.To-b.From <= 1 {
		return humanize.Comma(int64(b.From))
	}
	return humanize.Comma(int64(b.From)) + " - " + humanize.Comma(int64(b.To)-1)
}

func tiers(w io.Writer, s remote.Stats) {
	t := newTable("Tiers and memory", text.AlignLeft, text.AlignRight, text.AlignLeft)
	t.AppendRow(table.Row{"RAM", size(s.Cache.Bytes), fmt.Sprintf("of %s, %s blocks; %.1f %% of %s reads hit",
		size(s.Cache.Limit), humanize.Comma(int64(s.Cache.Entries)), s.Cache.HitRatio*100, humanize.Comma(int64(s.Cache.Hits+s.Cache.Misses)))})
	for _, tier := range s.Tiers {
		if tier.Fault != "" {
			t.AppendRow(table.Row{tier.Name, "-", "out of reach, what is in it gives EIO: " + printable(tier.Fault)})
			continue
		}
		t.AppendRow(table.Row{tier.Name, size(tier.Bytes), fmt.Sprintf("%s segments, %s read, %s written",
			humanize.Comma(int64(tier.Segments)), size(int64(tier.BytesRead)), size(int64(tier.BytesWritten)))})
	}
	if s.Daemon.PID != 0 {
		t.AppendRow(table.Row{"Process", size(s.Memory.RSS), fmt.Sprintf("resident, %s at most; Go heap %s", size(s.Memory.PeakRSS), size(int64(s.Memory.Heap)))})
		t.AppendRow(table.Row{"Unsaved", size(s.Volume.DirtyBytes), "written and not yet stored"})
	}
	section(w, t)
}

func latencies(w io.Writer, s remote.Stats) {
	if s.Daemon.PID == 0 {
		return
	}
	t := newTable("", text.AlignLeft, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight)
	t.AppendHeader(table.Row{"Requests", "Count", "p50", "p95", "p99", "max"})
	row := func(name string, n uint64, l store.Latency) {
		t.AppendRow(table.Row{name, humanize.Comma(int64(n)), ms(l.P50), ms(l.P95), ms(l.P99), ms(l.Max)})
	}
	row("commit", uint64(s.Commits.Count), s.Commits)
	for _, op := range slices.SortedFunc(maps.Keys(s.FUSE.Requests), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.FUSE.Requests[b], s.FUSE.Requests[a]), cmp.Compare(a, b))
	}) {
		row(op, s.FUSE.Requests[op], s.FUSE.Latencies[op])
	}
	section(w, t)
}

// section is finish with a blank line before it, for a table that is not the first thing
// in an output.
func section(w io.Writer, t table.Writer) {
	fmt.Fprintln(w)
	finish(w, t)
}
