// Command quarxfs-node is the agent of a machine that is a node of a cluster. It is
// a program of its own so that quarxfs is not linked with what a cluster needs.
// People use quarxfs cluster, which starts it; an init system runs it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/cmd/internal/buildinfo"
	"github.com/quarxtor/quarxfs/remote/cluster/agent"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/etcd/embedded"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := newRoot().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quarxfs-node:", err)
		os.Exit(client.ExitCode(err))
	}
}

func newRoot() *cobra.Command {
	var dir string
	root := &cobra.Command{
		Use:           "quarxfs-node",
		Short:         "Run this machine's node of a QuarXFS cluster",
		Long:          "Runs this machine's node of a QuarXFS cluster. A node is made by quarxfs cluster init or join.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       buildinfo.Version(),
	}
	root.PersistentFlags().StringVar(&dir, "dir", client.DefaultDir, "the node's `directory`")
	var page string
	serve := &cobra.Command{
		Use:   "run",
		Short: "Be the node's agent until SIGTERM",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return agent.Dir(dir).Run(cmd.Context(), agent.Options{Version: buildinfo.Version(), Log: log, Etcd: embedded.Start, Page: page, Ready: func() {
				_, _ = daemon.SdNotify(false, daemon.SdNotifyReady) // nobody listens unless systemd has started it
			}})
		},
	}
	serve.Flags().StringVar(&page, "page", "", "show the cluster's page and metrics at this `address`, such as 127.0.0.1:7444, too")
	root.AddCommand(serve, &cobra.Command{
		Use:    "make",
		Hidden: true, // quarxfs cluster init and join have the flags
		Short:  "Make this machine a node as the JSON document on standard input says",
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), client.MostBytes))
			var s client.SetUp
			if err == nil {
				err = json.Unmarshal(b, &s)
			}
			if err != nil {
				return errors.Join(client.ErrRequest, err)
			}
			if s.Cluster == "" {
				return agent.Dir(dir).Join(cmd.Context(), s, time.Now)
			}
			return agent.Dir(dir).Found(s, time.Now())
		},
	})
	return root
}
