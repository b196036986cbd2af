package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/pki"
)

func newCluster() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Manage machines that keep copies for each other (experimental)",
	}
	cmd.AddCommand(newClusterInit(), newClusterToken(), newClusterJoin(), newClusterNodes(), newClusterStatus(), newClusterHealth(), newClusterWhere(), newClusterVolume(),
		newClusterDrain(), newClusterUndrain(), newClusterBalance(), newClusterBlast(), newClusterSettings(), newClusterRebuild(),
		newClusterStart(), newClusterStop(), newClusterLeave())
	return cmd
}

// nodeDir adds the flag that says which node of this machine is meant.
func nodeDir(f *pflag.FlagSet, to *string) {
	*to = client.DefaultDir
	f.Var((*absPath)(to), "dir", "the node's `directory`")
}

// An absPath is a flag of a path, which a process that stands elsewhere gets, too.
type absPath string

func (p *absPath) String() string { return string(*p) }
func (p *absPath) Type() string   { return "string" }

func (p *absPath) Set(text string) error {
	if text == "" {
		return errors.New("needs a value")
	}
	abs, err := mounts.Abs(text)
	*p = absPath(abs)
	return err
}

// nodeFlags adds what describes a node that is to be made.
func nodeFlags(f *pflag.FlagSet, s *client.SetUp, dir *string) {
	nodeDir(f, dir)
	f.StringVar(&s.Name, "node", "", "the node's `name`; this host's without it")
	f.StringVar(&s.Zone, "zone", "", "`name` of what fails together, such as a rack; copies go to different ones")
	capacity := sizeFlag{to: (*byteSize)(&s.Capacity), least: 1, zero: "all that the disk has", example: "4TiB"}
	sizeVar(f, capacity, "capacity", "`size` of what the node may store; 0: all that the disk has")
	f.StringVar(&s.Host, "address", "", "`host` at which other nodes reach this one; its first address in a network without it")
	f.StringVar(&s.Listen, "listen", "", "`host` to listen on, such as 0.0.0.0; --address without it")
	s.Port = client.DefaultPort
	numberVar(f, &s.Port, 1, 65533, "port", "first of three `ports`: the agent's, and two of etcd")
	f.BoolVar(&s.Witness, "witness", false, "vote, and hold no copies")
}

// completeSetUp fills in what the machine knows of itself.
func completeSetUp(s client.SetUp) (client.SetUp, error) {
	if s.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return s, err
		}
		// Without the domain: the name is for people, and the address is told apart from it.
		s.Name, _, _ = strings.Cut(host, ".")
	}
	if s.Host == "" {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return s, err
		}
		for _, a := range addrs {
			// Neither the loopback nor a link-local address, at which no other machine would find
			// this one.
			if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
				s.Host = ip.IP.String()
				break
			}
		}
	}
	// All is checked here, before anything is made on the disk.
	return s, s.Validate()
}

func newClusterInit() *cobra.Command {
	var s client.SetUp
	var dir string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Begin a cluster with this machine",
		Long: `Begins a cluster: makes its certificate authority and this machine's node, and starts the
node's agent (quarxfs-node) in the background. Other machines join with a token.`,
		Example: "  quarxfs cluster init --name lab --zone rack1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.Cluster == "" {
				return usageErrorf(cmd, "--name NAME is missing")
			}
			return setUpNode(cmd, dir, s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.Cluster, "name", "", "the cluster's `name`")
	nodeFlags(f, &s, &dir)
	return cmd
}

func newClusterJoin() *cobra.Command {
	var s client.SetUp
	var dir string
	cmd := &cobra.Command{
		Use:   "join TOKEN",
		Short: "Make this machine a node of a cluster",
		Long: `Makes this machine a node of the cluster that TOKEN is of, and starts the node's agent
(quarxfs-node) in the background. TOKEN is the line that quarxfs cluster token printed on a
machine that votes; - reads it from standard input.

The first three nodes vote on what the cluster decides, the second one as soon as there is a
third: two voters would bear no failure, as one does not.`,
		Example: "  quarxfs cluster join - --zone rack2 < token",
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Token = args[0]
			// A token on the command line is seen by every user of this machine.
			if s.Token == "-" {
				b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), client.MostBytes))
				if err != nil {
					return err
				}
				s.Token = strings.TrimSpace(string(b))
			}
			// Before the program is looked for and a directory made: a token that was cut when it
			// was copied is the likeliest fault.
			if _, err := pki.ParseToken(s.Token); err != nil {
				return err
			}
			return setUpNode(cmd, dir, s)
		},
	}
	nodeFlags(cmd.Flags(), &s, &dir)
	return cmd
}

// setUpNode has quarxfs-node make the node, and starts its agent.
func setUpNode(cmd *cobra.Command, dir string, s client.SetUp) error {
	s, err := completeSetUp(s)
	if err != nil {
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	// By another program, so that this one is not linked with etcd.
	made, err := nodeProgram(cmd.Context(), "make", "--dir", dir)
	if err != nil {
		return err
	}
	var said bytes.Buffer
	made.Stdin, made.Stderr = bytes.NewReader(b), &said // not in arguments, which all can read: a token is a secret
	if err := made.Run(); err != nil {
		return nodeError(err, said.String())
	}
	self, err := startNode(cmd.Context(), dir, "")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is a node of cluster %s at %s\n", self.Node, self.Cluster, self.Address)
	return err
}

// nodeProgram is quarxfs-node, which is beside this program or in the PATH.
func nodeProgram(ctx context.Context, args ...string) (*exec.Cmd, error) {
	const name = "quarxfs-node"
	// Beside this one first: two versions may be installed, and these two belong together.
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), name); isFile(beside) {
			return exec.CommandContext(ctx, beside, args...), nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%s is not installed: make build makes it, and it belongs beside quarxfs or into the PATH", name)
	}
	return exec.CommandContext(ctx, path, args...), nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// nodeError is what quarxfs-node has said, with the exit code that it has chosen.
func nodeError(err error, said string) error {
	ended, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return err
	}
	// Its line is shown as this program's own, so its name goes.
	text, _ := strings.CutPrefix(strings.TrimSpace(said), "quarxfs-node: ")
	return coded{Code: max(ended.ExitCode(), exitOther), Text: cmp.Or(text, err.Error())}
}

const (
	nodeLog   = "agent.log"
	startTime = time.Minute

	mostTokens = 1000
)

// startNode starts the agent of dir in the background, with a page unless its address is empty, and
// waits until it reaches the register.
func startNode(ctx context.Context, dir, page string) (client.Self, error) {
	// It outlives this command, so ctx does not bound it.
	agent, err := nodeProgram(context.WithoutCancel(ctx), "run", "--dir", dir, "--page", page)
	if err != nil {
		return client.Self{}, err
	}
	// A file and no pipe, as this process leaves first.
	log, err := os.OpenFile(filepath.Join(dir, nodeLog), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return client.Self{}, err
	}
	defer log.Close()
	// What is behind it is this start's: the log may have earlier ends in it.
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return client.Self{}, err
	}
	agent.Stdout, agent.Stderr = log, log
	agent.Dir = "/" // it keeps no directory busy
	agent.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := agent.Start(); err != nil {
		return client.Self{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var self client.Self
	for {
		var asked error
		// The PID: an agent that runs already answers as well, and is not the one that was started.
		if self, asked = client.Local(dir).Self(ctx); asked == nil && self.Ready && self.PID == agent.Process.Pid {
			return self, nil
		}
		select {
		// Its last line says why.
		case err := <-ended:
			lines, _ := io.ReadAll(io.NewSectionReader(log, from, client.MostBytes))
			all := strings.Split(strings.TrimSpace(string(lines)), "\n")
			return self, nodeError(err, all[len(all)-1])
		// Left running: the other voters may be on their way.
		case <-ctx.Done():
			return self, fmt.Errorf("%w: %s; it goes on trying: see %s", client.ErrNoQuorum, cmp.Or(self.Why, "no answer yet"), log.Name())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func newClusterStart() *cobra.Command {
	var dir, page string
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Start this machine's node again",
		Long: `Starts the agent of this machine's node in the background, as after a restart of the
machine where no init system does it. The page that --page shows is /cluster/.`,
		Example: "  quarxfs cluster start --page 127.0.0.1:7444",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := client.CheckSetUp(dir); err != nil {
				return err
			}
			_, err := startNode(cmd.Context(), dir, page)
			return err
		},
	}
	nodeDir(cmd.Flags(), &dir)
	cmd.Flags().StringVar(&page, "page", "", "show the cluster's page and metrics at this `address` of this machine alone, such as 127.0.0.1:7444")
	return cmd
}

func newClusterStop() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:     "stop",
		Short:   "Stop this machine's node for a while",
		Long:    `Stops the agent of this machine's node. The machine stays a node, which is down.`,
		Example: "  quarxfs cluster stop",
		RunE: func(cmd *cobra.Command, _ []string) error {
			agent := client.Local(dir)
			// Asked before it is stopped, since afterwards nobody tells its process.
			self, err := agent.Self(cmd.Context())
			if err == nil {
				err = agent.Stop(cmd.Context())
			}
			if err != nil {
				return err
			}
			// Success means that it has ended.
			for syscall.Kill(self.PID, 0) == nil {
				select {
				case <-time.After(50 * time.Millisecond):
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				}
			}
			return nil
		},
	}
	nodeDir(cmd.Flags(), &dir)
	return cmd
}

func newClusterToken() *cobra.Command {
	var dir string
	lasts := time.Hour
	var asJSON bool
	machines := 1
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token that one machine can join with",
		Long: `Makes a token and prints it, once. One machine can become a node with it until it expires.
It holds a secret: whoever has it can become a node. --machines makes several, a line each.`,
		Example: "  quarxfs cluster token > token\n  quarxfs cluster token --machines 2",
		RunE: func(cmd *cobra.Command, _ []string) error {
			print := func(w io.Writer, t client.Token) error {
				_, err := fmt.Fprintln(w, t.Token)
				return err
			}
			return printLines(cmd.OutOrStdout(), asJSON, print, func(fn func(client.Token) error) error {
				for range machines {
					t, err := client.Local(dir).NewToken(cmd.Context(), lasts)
					if err == nil {
						err = fn(t)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	nodeDir(f, &dir)
	timeVar(f, timeFlag{to: &lasts, least: time.Second, most: 30 * 24 * time.Hour}, "expires", "`time` from now on after which it counts no more")
	numberVar(f, &machines, 1, mostTokens, "machines", "how many `machines` are to join, each with a token of its own")
	jsonLinesFlag(f, &asJSON)
	return cmd
}

func newClusterNodes() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "nodes",
		Short:   "List the cluster's nodes, and which are up",
		Example: "  quarxfs cluster nodes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := client.Local(dir).Nodes(cmd.Context())
			if err != nil {
				return err
			}
			// A line for each node, as of all lists.
			if asJSON {
				return printLines(cmd.OutOrStdout(), true, nil, func(fn func(client.NodeView) error) error { return each(v.Nodes, fn) })
			}
			t := newTable("", text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignLeft)
			t.AppendHeader(table.Row{"Node", "Zone", "Roles", "State", "Up", "Address"})
			for _, n := range v.Nodes {
				t.AppendRow(table.Row{n.Name, printable(n.Zone), nodeRoles(n.Roles, n.Votes), string(n.State), yesNo(n.Up), n.Address})
			}
			finish(cmd.OutOrStdout(), t)
			return nil
		},
	}
	nodeDir(cmd.Flags(), &dir)
	jsonLinesFlag(cmd.Flags(), &asJSON)
	return cmd
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func newClusterLeave() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "leave [NODE]",
		Short: "Take a node out of the cluster",
		Long: `Takes NODE, or this machine's node, out of the cluster for good. It may be down. Its
certificate counts no more; the machine can join again with a new token. A voter without which too
few would be left to decide is not let go, nor one whose copies are needed: quarxfs cluster drain
moves these elsewhere.`,
		Example: "  quarxfs cluster leave n3",
		RunE: func(cmd *cobra.Command, args []string) error {
			agent := client.Local(dir)
			name := ""
			if len(args) > 0 {
				name = args[0]
			} else {
				// Only this node's own name has to be asked for; NODE may be down and answer
				// nothing.
				self, err := agent.Self(cmd.Context())
				if err != nil {
					return err
				}
				name = self.Node
			}
			return agent.Remove(cmd.Context(), name)
		},
	}
	nodeDir(cmd.Flags(), &dir)
	return cmd
}
