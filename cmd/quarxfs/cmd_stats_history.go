package main

import (
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/quarxtor/quarxfs/graph"
)

// showHistory prints a line for each snapshot.
func showHistory(w io.Writer, asJSON bool, walk func(fn func(graph.HistoryPoint) error) error) error {
	if asJSON {
		return printLines(w, true, nil, walk)
	}
	t := newTable("", text.AlignLeft, text.AlignLeft, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight, text.AlignRight)
	t.AppendHeader(table.Row{"Snapshot", "Made", "Data", "Written", "New", "Stored", "Dedup", "Entropy", ""})
	var alarms []string
	err := walk(func(p graph.HistoryPoint) error {
		// The alarm itself is a sentence, which a column has no room for: it follows below the
		// table.
		mark := ""
		if p.Alarm != "" {
			mark = "!"
			alarms = append(alarms, printable(p.Name)+": "+p.Alarm)
		}
		if p.Fault != "" {
			alarms = append(alarms, printable(p.Name)+" "+cannotBeRead(p.Fault))
			t.AppendRow(table.Row{printable(p.Name), "?", "?", "?", "?", "?", "?", "?", "!"})
			return nil
		}
		entropy := "-"
		if p.New > 0 {
			entropy = fmt.Sprintf("%.2f", p.NewEntropy)
		}
		t.AppendRow(table.Row{printable(p.Name), p.Created.Local().Format("2006-01-02 15:04"), size(p.Data), size(p.Written), size(p.New),
			size(p.NewStored), times(p.NewDedup), entropy, mark})
		return nil
	})
	if err != nil {
		return err
	}
	if err := printList(w, t, "snapshots"); err != nil {
		return err
	}
	for _, a := range alarms {
		if _, err := fmt.Fprintf(w, "\n! %s\n", a); err != nil {
			return err
		}
	}
	return nil
}
