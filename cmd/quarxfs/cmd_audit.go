package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote/serve"
)

func newAudit() *cobra.Command {
	var asJSON bool
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "audit [STORE]",
		Short: "Show who changed what, through tokens and the mount's daemon",
		Long: `Shows the requests that changed something, or were refused to a token: when, who, from where,
what, and the status of the answer. They come from other machines and from commands on a mounted
store. What programs do in the mount, and commands on a store that is not mounted, is not there.

The newest 16 to 32 MiB of them are kept, in the store's directory.`,
		Example: `  quarxfs audit /mnt --since 24h
  quarxfs audit /srv/store --json | jq 'select(.status == 403)'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := findStore(cmd, args)
			if err != nil {
				return err
			}
			var from time.Time
			if since > 0 {
				from = time.Now().Add(-since)
			}
			bad := 0
			err = printLines(cmd.OutOrStdout(), asJSON, showAudit, func(fn func(serve.AuditEvent) error) (err error) {
				bad, err = serve.ReadAudit(a.dir, from, fn)
				return err
			})
			if bad > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d lines of the audit log are no events, and were left out\n", bad)
			}
			return err
		},
	}
	timeVar(cmd.Flags(), timeFlag{to: &since, least: time.Second, zero: "all"}, "since", "only what is not older than this `time`, such as 24h; 0: all")
	jsonLinesFlag(cmd.Flags(), &asJSON)
	return cmd
}

func showAudit(w io.Writer, e serve.AuditEvent) error {
	if e.Missed > 0 {
		if _, err := fmt.Fprintf(w, "%d events before the next one could not be written\n", e.Missed); err != nil {
			return err
		}
	}
	about := []string{printable(e.Path)}
	if e.Query != "" {
		about[0] += "?" + printable(e.Query)
	}
	for _, of := range []struct{ what, is string }{
		{"name", e.About.Name}, {"snapshot", e.About.Snapshot}, {"path", e.About.Path}, {"to", e.About.To}, {"id", e.About.ID}, {"for", e.About.For},
		{"until", e.About.Until}, {"scopes", strings.Join(e.About.Scopes, ",")},
	} {
		if of.is != "" {
			about = append(about, of.what+"="+printable(of.is))
		}
	}
	if e.About.Held != nil {
		about = append(about, fmt.Sprintf("held=%t", *e.About.Held))
	}
	from := e.From
	if from == "" {
		from = "this machine"
	}
	_, err := fmt.Fprintf(w, "%s  %s, %s: %s %s: %d\n", e.Time.Local().Format(time.DateTime), printable(e.Who), printable(from), e.Method,
		strings.Join(about, " "), e.Status)
	return err
}
