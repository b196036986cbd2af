package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/store/config"
)

func newToken() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Manage the access of other machines",
	}
	for _, c := range []*cobra.Command{newTokenCreate(), newTokenList(), newTokenRevoke()} {
		cmd.AddCommand(c)
	}
	return cmd
}

func scopeNames() []string {
	var names []string
	for _, s := range config.Scopes() {
		names = append(names, string(s))
	}
	return names
}

func newTokenCreate() *cobra.Command {
	var scopes []string
	var lasts time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create [STORE] NAME",
		Short: "Make a token and print it, once",
		Long: `Makes a token with which other machines can use the store while it is served (see quarxfs serve),
and prints it. The store keeps only its hash, so a token cannot be shown again.

Scopes: read (everything in the store), write (put and remove objects), sync (push and pull
snapshots, remove those that it has pushed, and read), append (put objects and push snapshots under
free names, and remove or replace nothing), admin (everything).`,
		Example: `  quarxfs token create /srv/store laptop --scope sync > laptop.token
  quarxfs token create /mnt ci --scope read,write --expires 720h`,
		RunE: func(cmd *cobra.Command, args []string) error {
			n := remote.NewToken{Name: args[1]}
			for _, s := range scopes {
				n.Scopes = append(n.Scopes, config.Scope(s))
			}
			if lasts > 0 {
				n.Expires = time.Now().Add(lasts)
			}
			return onStore(cmd, args[:1], func(node remote.Node) error {
				// Printed and nowhere kept: the store has its hash.
				made, err := node.CreateToken(cmd.Context(), n)
				switch {
				case err != nil:
				case asJSON:
					err = rawjson.Write(cmd.OutOrStdout(), made)
				default:
					_, err = fmt.Fprintln(cmd.OutOrStdout(), made.Token)
				}
				return err
			})
		},
	}
	f := cmd.Flags()
	scopes = []string{string(config.ScopeRead)}
	listVar(f, &scopes, "scope", "", "what it allows, any of these `scopes`: read, write, sync, append, admin", scopeNames()...)
	timeVar(f, timeFlag{to: &lasts, least: time.Second, zero: "never"}, "expires", "`time` until it expires, such as 720h; 0: never")
	jsonFlag(f, &asJSON)
	return cmd
}

func newTokenList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list [STORE]",
		Short:   "List the tokens: names and scopes",
		Example: `  quarxfs token list /mnt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args, func(n remote.Node) error {
				list := func(fn func(config.Token) error) error { return n.ListTokens(cmd.Context(), fn) }
				if asJSON {
					return printLines(cmd.OutOrStdout(), true, nil, list)
				}
				t := newTable("", text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignLeft)
				t.AppendHeader(table.Row{"Token", "Scopes", "Made", "Last used", "Expires"})
				err := list(func(k config.Token) error {
					var scopes []string
					for _, s := range k.Scopes {
						scopes = append(scopes, string(s))
					}
					t.AppendRow(table.Row{printable(k.Name), strings.Join(scopes, ","), at(k.Created, "15:04"), at(k.LastUsed, "15h"), at(k.Expires, "15:04")})
					return nil
				})
				if err != nil {
					return err
				}
				return printList(cmd.OutOrStdout(), t, "tokens")
			})
		},
	}
	jsonLinesFlag(cmd.Flags(), &asJSON)
	return cmd
}

// minute prints a time of the day, or that there is none.
// at shows when something was, with the time of the day as layout has it: a last use is known to
// the hour.
func at(t time.Time, layout string) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format("2006-01-02 " + layout)
}

func newTokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use:     "revoke [STORE] TOKEN",
		Short:   "Revoke a token, at once",
		Example: `  quarxfs token revoke /mnt laptop`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onStore(cmd, args[:1], func(n remote.Node) error { return n.RevokeToken(cmd.Context(), args[1]) })
		},
	}
}
