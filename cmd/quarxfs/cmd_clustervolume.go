package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/mounts"
	"github.com/quarxtor/quarxfs/remote"
	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/health"
	"github.com/quarxtor/quarxfs/remote/transfer"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/chunk"
)

// errUnconfirmed: what is lost was not typed back.
var errUnconfirmed = errors.New("nothing was changed: repeat it with --snapshot and that name")

func newClusterVolume() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "Manage volumes whose snapshots other nodes have (experimental)",
		Long: `A volume is a store that one node writes, its home. Other nodes, its vaults, have snapshots
of it, the newest no older than the volume's RPO. If the home is lost, another node takes the volume
over from the newest snapshot; what was written after that one is lost.`,
	}
	cmd.AddCommand(newVolumeCreate(), newVolumeAdopt(), newVolumeList(), newVolumeTakeover(), newVolumeVault(), newVolumeForget())
	return cmd
}

// volumeOptions are those of a volume that is to be made.
type volumeOptions struct {
	dir    string // the node's
	volume cluster.Volume
	rpo    time.Duration
	mount  string
	vaults []string
	json   bool

	mirrors      []string
	experimental bool
}

func (o *volumeOptions) addFlags(f *pflag.FlagSet) {
	nodeDir(f, &o.dir)
	o.rpo, o.volume.Copies, o.volume.Domain = time.Minute, 2, "default"
	rpo := timeFlag{to: &o.rpo, least: cluster.LeastRPO * time.Second, most: cluster.MostRPO * time.Second}
	timeVar(f, rpo, "rpo", "how old the newest snapshot at a vault may be; one is made twice in that `time`")
	numberVar(f, &o.volume.Copies, 1, cluster.MostCopies, "copies", "how many `nodes` are to have it, with this one")
	listVar(f, &o.vaults, "vault", "", "`nodes` that have its snapshots; without it they are chosen: in other zones, and the emptiest")
	f.StringVar(&o.volume.Domain, "domain", o.volume.Domain, "`name` of the volumes that it shares blocks with at the vaults")
	f.Var((*absPath)(&o.mount), "mount", "mount it at this `directory`")
	jsonFlag(f, &o.json)
}

func newVolumeCreate() *cobra.Command {
	var o volumeOptions
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a new volume whose home is this node",
		Long: `Makes a new store for the volume and adds it to the cluster. While it is mounted, the node's
agent makes snapshots of it and sends them to its vaults.`,
		Example: "  quarxfs cluster volume create home --mount /srv/home",
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.volume.Name = args[0]; cluster.CheckName(o.volume.Name) != nil {
				return fmt.Errorf("volume: %w", cluster.CheckName(o.volume.Name))
			}
			if o.volume.Store == "" {
				o.volume.Store = filepath.Join(o.dir, "volumes", o.volume.Name)
			}
			if err := o.setMirrors(cmd); err != nil {
				return err
			}
			agent := client.Local(o.dir)
			// Before there is a store that would belong to nobody.
			if s, err := agent.Status(cmd.Context()); err != nil {
				return err
			} else if slices.ContainsFunc(s.Volumes, func(v health.Volume) bool { return v.Name == o.volume.Name }) {
				return fmt.Errorf("%q: %w", o.volume.Name, cluster.ErrVolumeExists)
			}
			ours := chunk.Default()
			// Asked first without a splitter of ours: a domain that is there has one, and the store
			// must split as it does, or its snapshots share nothing.
			d, err := agent.AgreeOnDomain(cmd.Context(), client.DomainRequest{Name: o.volume.Domain})
			if errors.Is(err, cluster.ErrNoDomain) {
				d, err = agent.AgreeOnDomain(cmd.Context(), client.DomainRequest{Name: o.volume.Domain, Chunker: &ours})
			}
			if err == nil {
				err = initVolume(cmd, o.volume.Store, d, o.volume.Mirrored != nil)
			}
			if err != nil {
				return err
			}
			return o.add(cmd)
		},
	}
	f := cmd.Flags()
	f.Var((*absPath)(&o.volume.Store), "store", "`directory` of its store; without it, one in the node's")
	listVar(f, &o.mirrors, "mirror", "", "`nodes` that have each commit before an fsync returns; with --experimental")
	f.BoolVar(&o.experimental, "experimental", false, "allow --mirror: see what it promises in docs/cluster.md")
	o.addFlags(f)
	return cmd
}

// setMirrors has the volume have mirrors, if some are named.
func (o *volumeOptions) setMirrors(cmd *cobra.Command) error {
	if len(o.mirrors) == 0 {
		return nil
	}
	if !o.experimental {
		return usageErrorf(cmd, "mirrors are experimental: give --experimental, too")
	}
	o.volume.Mirrored = new(cluster.Mirrored)
	for _, name := range o.mirrors {
		o.volume.Mirrored.Copies = append(o.volume.Mirrored.Copies, cluster.MirrorCopy{Node: name})
	}
	return nil
}

// initVolume makes the store of a volume, which is split as its domain is.
func initVolume(cmd *cobra.Command, dir string, d cluster.Domain, mirrored bool) error {
	if err := notNested(cmd.Context(), dir); err != nil {
		return err
	}
	conf := store.DefaultConfig()
	conf.Chunker, conf.Mirrored = d.Chunker, mirrored
	var err error
	if conf.SegmentSize, err = store.FitSegmentSize(dir); err != nil {
		return err
	}
	return initStore(dir, conf, cmd.ErrOrStderr())
}

// add tells the cluster of the volume, whose store is there, and mounts it if that is wanted.
func (o *volumeOptions) add(cmd *cobra.Command) error {
	o.volume.RPO = int64(o.rpo / time.Second)
	if cmd.Flags().Changed("vault") {
		o.volume.Vaults = o.vaults
		// Named vaults are all that are wanted; the default of two would have more of them chosen,
		// or too few.
		if !cmd.Flags().Changed("copies") {
			o.volume.Copies = 1 + len(o.vaults)
		}
	}
	v, err := client.Local(o.dir).CreateVolume(cmd.Context(), o.volume)
	if err != nil {
		return err
	}
	// Printed although the mount may fail: the volume is made.
	return errors.Join(printVolume(cmd, o.json, v), mountVolume(cmd, v.Store, o.mount, o.json))
}

func printVolume(cmd *cobra.Command, asJSON bool, v cluster.Volume) error {
	return printOne(cmd, asJSON, v, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "volume %s is on %s, with snapshots on %s%s\n", v.Name, v.Home, orNone(v.Vaults), mirrorsOf(v))
		return err
	})
}

// mirrorsOf says which mirrors a volume has; empty: none.
func mirrorsOf(v cluster.Volume) string {
	if v.Mirrored == nil {
		return ""
	}
	return ", and mirrors on " + orNone(v.Mirrored.Nodes())
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "no node yet"
	}
	return strings.Join(names, ", ")
}

// mountVolume mounts a store, or says how that is done.
func mountVolume(cmd *cobra.Command, dir, mountpoint string, quiet bool) error {
	if mountpoint != "" {
		return daemon.Start(cmd.Context(), []string{"mount", dir, mountpoint}, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	// Standard output is JSON then.
	if quiet {
		return nil
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "mount it with: quarxfs mount %s DIRECTORY\n", dir)
	return err
}

func newVolumeAdopt() *cobra.Command {
	var o volumeOptions
	cmd := &cobra.Command{
		Use:   "adopt DIR NAME",
		Short: "Make a store that is there a volume whose home is this node",
		Long: `Adds the store in the directory DIR to the cluster as the volume NAME. Nothing in it is
changed; it may be mounted. The first store of a domain decides how files of the domain are split;
one that is split in another way gets a domain of its own with --domain.`,
		Example: "  quarxfs cluster volume adopt /srv/store home",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			o.volume.Name = args[1]
			if o.volume.Store, err = mounts.Abs(args[0]); err != nil {
				return err
			}
			// Here, where the message can name the argument; the agent would find out later.
			if _, err := store.ReadConfig(o.volume.Store); err != nil {
				return err
			}
			return o.add(cmd)
		},
	}
	o.addFlags(cmd.Flags())
	return cmd
}

func newVolumeList() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the cluster's volumes",
		Example: "  quarxfs cluster volume list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := client.Local(dir).Status(cmd.Context())
			if err != nil {
				return err
			}
			return listVolumes(cmd, asJSON, s.Volumes, printVolumes)
		},
	}
	nodeDir(cmd.Flags(), &dir)
	jsonLinesFlag(cmd.Flags(), &asJSON)
	return cmd
}

// listVolumes shows them as JSON, or in a table if there are any.
func listVolumes(cmd *cobra.Command, asJSON bool, volumes []health.Volume, show func(io.Writer, []health.Volume)) error {
	switch {
	case asJSON:
		return printLines(cmd.OutOrStdout(), true, nil, func(fn func(health.Volume) error) error { return each(volumes, fn) })
	// A table with a header alone looks like an error.
	case len(volumes) == 0:
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "There are no volumes.")
		return err
	}
	show(cmd.OutOrStdout(), volumes)
	return nil
}

// printVolumes shows each with how old its newest snapshot at a vault is.
func printVolumes(w io.Writer, volumes []health.Volume) {
	t := newTable("", text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignRight, text.AlignRight, text.AlignLeft, text.AlignRight)
	t.AppendHeader(table.Row{"Volume", "Home", "Online", "Vaults", "Newest", "RPO", "Protected", "Size"})
	for _, v := range volumes {
		t.AppendRow(table.Row{
			v.Name, v.Home, known(v.Online, yesNo), orNone(v.VaultNames()), known(v.Lag, oldness), time.Duration(v.RPO) * time.Second,
			known(v.Protected, yesNo), known(v.Bytes, size),
		})
	}
	finish(w, t)
}

func oldness(seconds float64) string {
	return time.Duration(seconds*float64(time.Second)).Round(time.Second).String() + " old"
}

func newClusterWhere() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "where [VOLUME]",
		Short: "Show which node has what of which volume",
		Long: `Shows for each volume, or for VOLUME alone, its home and its vaults: the newest snapshot that a
vault has with all that is in it. Each node has looked itself, at the time that is shown; what one did
not say is "?".`,
		Example: "  quarxfs cluster where home",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := client.Local(dir).Status(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) > 0 {
				i := slices.IndexFunc(s.Volumes, func(v health.Volume) bool { return v.Name == args[0] })
				if i < 0 {
					return fmt.Errorf("%q: %w", args[0], cluster.ErrNoVolume)
				}
				// A list of one, so that it is printed as all are.
				s.Volumes = s.Volumes[i : i+1]
			}
			return listVolumes(cmd, asJSON, s.Volumes, printWhere)
		},
	}
	nodeDir(cmd.Flags(), &dir)
	jsonLinesFlag(cmd.Flags(), &asJSON)
	return cmd
}

func printWhere(w io.Writer, volumes []health.Volume) {
	t := newTable("", text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignLeft, text.AlignRight, text.AlignLeft)
	t.AppendHeader(table.Row{"Volume", "Node", "As", "Has", "Age", "Verified"})
	for _, v := range volumes {
		has := "all of it, in " + v.Store
		// A home that did not answer is "?" whatever the register says: only who has looked counts.
		switch {
		case v.Online == nil:
			has = "?"
		case v.Filling:
			has = "a part of it, in " + v.Store
		case !*v.Online:
			has = "not mounted, in " + v.Store
		}
		t.AppendRow(table.Row{v.Name, v.Home, fmt.Sprintf("home, epoch %d", v.Epoch), printable(has), "", ""})
		for _, c := range v.Mirrors {
			has := "all that is acknowledged"
			if !c.InSync {
				has = "left behind"
			}
			t.AppendRow(table.Row{"", c.Node, "mirror", has, "", "by the register"})
		}
		for _, c := range v.Vaults {
			has := "?"
			switch {
			// An answer without a snapshot is another thing than no answer.
			case c.Newest != nil:
				has = c.Newest.Name
			case c.Answered:
				has = "nothing"
			}
			verified := "no answer"
			if c.Verified != nil {
				verified = c.Verified.Local().Format(time.TimeOnly)
			}
			t.AppendRow(table.Row{"", c.Node, "vault", has, known(c.Age, oldness), verified})
		}
	}
	finish(w, t)
}

func newVolumeVault() *cobra.Command {
	var dir string
	var q client.VaultsRequest
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "vault NAME",
		Short: "Change which nodes have a volume's snapshots",
		Long: `Adds nodes to the vaults of the volume NAME, or takes some out. How many copies are wanted goes
with that. --copies says it alone: what is missing then is made on nodes that are chosen, and what is too
many is removed. A vault that was taken out gets no more.`,
		Example: "  quarxfs cluster volume vault home --add n3 --remove n2\n  quarxfs cluster volume vault home --copies 3",
		RunE: func(cmd *cobra.Command, args []string) error {
			// Without either nothing would happen, and look done.
			if len(q.Add)+len(q.Remove)+q.Copies == 0 {
				return usageErrorf(cmd, "give --add NODE, --remove NODE or --copies N")
			}
			v, err := client.Local(dir).SetVaults(cmd.Context(), args[0], q)
			if err != nil {
				return err
			}
			return printVolume(cmd, asJSON, v)
		},
	}
	f := cmd.Flags()
	nodeDir(f, &dir)
	listVar(f, &q.Add, "add", "", "`nodes` that are to have snapshots, too")
	listVar(f, &q.Remove, "remove", "", "`nodes` that are to get none any more")
	numberVar(f, &q.Copies, 0, cluster.MostCopies, "copies", "how many `nodes` are to have it, with its home; 0: as the vaults say")
	jsonFlag(f, &asJSON)
	return cmd
}

func newVolumeForget() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "forget NAME",
		Short: "Forget this node's former copy of a volume",
		Long: `Has this node forget the store in which it wrote the volume NAME before another node took it
over, so that the cluster's status does not speak of it any more. No file is removed.`,
		Example: "  quarxfs cluster volume forget home",
		RunE: func(cmd *cobra.Command, args []string) error {
			return client.Local(dir).ForgetHome(cmd.Context(), args[0])
		},
	}
	nodeDir(cmd.Flags(), &dir)
	return cmd
}

func newVolumeTakeover() *cobra.Command {
	var dir, mount string
	var q client.TakeoverRequest
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "takeover NAME",
		Short: "Make this node the home of a volume whose home is gone",
		Long: `Makes this node the home of the volume NAME, from the newest snapshot that a vault has. What was
written after that snapshot is not in the volume. So the command first shows it and changes nothing;
with --snapshot and its name it does it: no vault lets the former home in any more, the snapshots are
fetched, and the volume is as it was in the newest.

A node that is a mirror of the volume takes it over with all that was acknowledged, if it is in sync,
and needs no --snapshot. It waits up to 10 seconds until the former home can acknowledge nothing more.

When the former home comes back it pushes nothing. What it has stays in its store, and is saved at a
vault as snapshot diverged-EPOCH. A takeover that was interrupted is completed by the same command.`,
		Example: "  quarxfs cluster volume takeover home\n  quarxfs cluster volume takeover home --snapshot cluster-1-417 --mount /srv/home",
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.Store == "" {
				q.Store = filepath.Join(dir, "volumes", args[0])
			}
			agent := client.Local(dir)
			t, err := agent.TakeOver(cmd.Context(), args[0], q)
			if err != nil {
				return err
			}
			// Nothing has changed yet. What is lost has to be read and typed back; no flag alone
			// does it.
			if !t.Done {
				age := time.Since(t.From.Created).Round(time.Second)
				fmt.Fprintf(cmd.OutOrStdout(), "%s is on %s. The newest snapshot is %s on %s, %v old, of %s.\nWhat was written after it is lost.\n",
					t.Volume.Name, t.Volume.Home, t.From.Snapshot, t.From.Vault, age, t.From.Created.Local().Format(time.DateTime))
				return fmt.Errorf("%w: --snapshot %s", errUnconfirmed, t.From.Snapshot)
			}
			// Set until the store is filled, so that an interrupted takeover is gone on with here.
			if t.Volume.From != nil {
				if err := fillVolume(cmd, agent, t); err != nil {
					return fmt.Errorf("%w; repeat the command to go on", err)
				}
			}
			err = printOne(cmd, asJSON, t.Volume, func(w io.Writer) error {
				v := t.Volume
				_, err := fmt.Fprintf(w, "volume %s is on %s now, epoch %d, with snapshots on %s%s\n", v.Name, v.Home, v.Epoch, orNone(v.Vaults), mirrorsOf(v))
				return err
			})
			return errors.Join(err, mountVolume(cmd, t.Volume.Store, mount, asJSON))
		},
	}
	f := cmd.Flags()
	nodeDir(f, &dir)
	f.Var((*absPath)(&q.Store), "store", "`directory` of its store here; without it, one in the node's")
	f.StringVar(&q.Snapshot, "snapshot", "", "`name` of the newest snapshot, as the command has shown it")
	f.BoolVar(&q.Force, "force", false, "although its home is up, or a vault does not answer")
	f.Var((*absPath)(&mount), "mount", "mount it at this `directory`")
	jsonFlag(f, &asJSON)
	return cmd
}

// fillVolume fetches a volume's snapshots from the vault and brings the newest back. It may be
// begun again at any point: what has come is not fetched twice, and nothing else writes the store
// before the end.
func fillVolume(cmd *cobra.Command, agent *client.Agent, t client.Takeover) error {
	ctx, v, from := cmd.Context(), t.Volume, *t.Volume.From
	if _, err := store.ReadConfig(v.Store); errors.Is(err, store.ErrNotStore) {
		err = initVolume(cmd, v.Store, t.Domain, false)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	vault := agent.Vault(from.Vault, v.ID, v.Epoch)
	a := access{target: target{dir: v.Store}, stderr: cmd.ErrOrStderr()}
	err := a.run(ctx, func(n remote.Node) error {
		refs, err := snapshotsFrom(ctx, vault, from.Snapshot)
		if err != nil {
			return err
		}
		line := newProgress(cmd.ErrOrStderr(), false)
		begun := time.Now()
		_, err = transfer.Transfer{
			From: vault, To: n, Snapshots: refs, Whose: "takeover of " + v.Name,
			Progress: func(p transfer.Progress) { line.show("%s", describeSync(p, time.Since(begun))) },
		}.Run(ctx)
		line.clear()
		if err != nil {
			return err
		}
		// With a snapshot of what was there: the store may be that of a former home.
		// With all privileges: what the vault has is this volume's own.
		_, err = n.Rollback(ctx, remote.RollbackRequest{Snapshot: from.Snapshot, Host: hostname(), KeepPrivileges: true})
		return err
	})
	if err != nil {
		return err
	}
	return agent.Filled(ctx, v.Name)
}

// snapshotsFrom lists those of a volume at a vault, the one that it begins with first: it is of
// most use if the rest does not come.
func snapshotsFrom(ctx context.Context, vault *remote.Client, first string) (refs []transfer.SnapshotRef, err error) {
	err = vault.ListSnapshots(ctx, func(s remote.Snapshot) error {
		refs = append(refs, transfer.SnapshotRef{Name: s.Name, ID: s.ID})
		return nil
	})
	i := slices.IndexFunc(refs, func(r transfer.SnapshotRef) bool { return r.Name == first })
	if err == nil && i < 0 {
		err = fmt.Errorf("snapshot %s: the vault has it no more: %w", first, store.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	begin := refs[i]
	return slices.Insert(slices.Delete(refs, i, i+1), 0, begin), nil
}
