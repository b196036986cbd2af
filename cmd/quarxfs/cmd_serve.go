package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/store"
)

func newServe() *cobra.Command {
	o := newMountOptions()
	cmd := &cobra.Command{
		Use:   "serve [STORE]",
		Short: "Let other machines use a store",
		Long: `Serves the API of the store in the directory STORE over HTTP until SIGTERM, without mounting it.
A mounted store is served with quarxfs mount --listen. serve prints the address, and with TLS
the certificate's fingerprint, which quarxfs remote add takes.

Every request needs a token (quarxfs token create) unless --anonymous says otherwise. This holds
for loopback addresses too, since any user of this machine can connect there. Without TLS only
loopback addresses are allowed. --insecure lifts both rules. /healthz and /readyz need no token.`,
		Example: `  quarxfs serve /srv/store --listen :7440 --tls
  quarxfs serve /srv/store --listen 127.0.0.1:7440
  quarxfs serve /srv/store --listen :7440 --tls-cert nas.crt --tls-key nas.key --client-ca peers.crt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.listen.Addr == "" {
				return usageErrorf(cmd, "--listen ADDRESS is missing")
			}
			if err := o.validate(); err != nil {
				return err
			}
			_, err := asked(cmd.Context(), hangTime, args, func() (any, error) {
				dir, err := locate(args[0])
				if err == nil {
					err = o.findStore(dir)
				}
				return nil, err
			})
			if err != nil {
				return err
			}
			// Until it is told to leave.
			err = o.serve(cmd)
			if errors.Is(err, store.ErrLocked) {
				return fmt.Errorf("%w; a mounted store is served with quarxfs mount --listen", err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen.Addr, "listen", "", "`address` to listen on, such as :7440; port 0 is any that is free")
	o.listen.addFlags(f)
	o.addStoreFlags(f)
	jsonFlag(f, &o.listen.JSON)
	return cmd
}
