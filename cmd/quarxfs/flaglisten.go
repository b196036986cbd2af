package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/quarxtor/quarxfs/cmd/quarxfs/internal/daemon"
	"github.com/quarxtor/quarxfs/store/config"
)

// listenOptions are how a daemon lets other machines in; no address: it does not.
type listenOptions struct {
	daemon.Listen
	anonymous []string
}

func (o *listenOptions) addFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.SelfSigned, "tls", false, "use TLS with a self-signed certificate that is made once and kept in the store")
	f.StringVar(&o.Cert, "tls-cert", "", "use TLS with the certificate in this `file`")
	f.StringVar(&o.Key, "tls-key", "", "`file` with the key of --tls-cert")
	f.StringVar(&o.ClientCA, "client-ca", "", "accept only clients with a certificate signed by one of the CAs in this `file`")
	listVar(f, &o.ClientPin, "client-fingerprint", "", "accept only clients with a certificate of one of these `SHA-256`")
	listVar(f, &o.anonymous, "anonymous", "", "what clients without a token may do, any of these `scopes`: read, write, sync, append, admin", scopeNames()...)
	f.BoolVar(&o.Insecure, "insecure", false, "allow plain HTTP, and clients without token or certificate, from other machines")
	listVar(f, &o.Hosts, "host", "", "also answer to these `names` over plain HTTP, besides addresses and this machine's own name")
	f.StringVar(&o.Metrics, "metrics", "", "serve /metrics for Prometheus at this `address`, such as 127.0.0.1:9440, over plain HTTP without tokens")
	o.Requests, o.Rate = 256, 2000
	numberVar(f, &o.Requests, 16, 65536, "max-requests", "requests served at a time, an upload or a walk through the store counts as 16; others wait")
	numberVar(f, &o.Rate, 0.001, most, "max-rate", "requests a second from one address")
}

// prepare checks what can be checked before the store is open.
func (o *listenOptions) prepare() error {
	if o.Metrics != "" {
		if err := o.MetricsOptions().Validate(); err != nil {
			return err
		}
	}
	if o.Addr == "" {
		// Whoever gives these means to be reached, and would find a port that nobody listens on.
		// Two of them are about the address of /metrics as well.
		ofBoth := o.Insecure || len(o.Hosts) > 0
		if o.SelfSigned || ofBoth && o.Metrics == "" || o.Cert+o.Key+o.ClientCA != "" || len(o.ClientPin)+len(o.anonymous) > 0 {
			return fmt.Errorf("%w: no client can connect without an address: --listen :7440", errUsage)
		}
		return nil
	}
	if o.SelfSigned && o.Cert != "" {
		return fmt.Errorf("%w: --tls makes a certificate; leave it out with --tls-cert", errUsage)
	}
	if err := makeAbs(&o.Cert, &o.Key, &o.ClientCA); err != nil {
		return err
	}
	o.Anonymous = nil
	for _, s := range o.anonymous {
		o.Anonymous = append(o.Anonymous, config.Scope(s))
	}
	// The certificate is made when the store is open; until then something has to stand for it.
	check := o.ListenOptions
	if o.SelfSigned {
		check.Cert, check.Key = "made", "made"
	}
	return check.Validate()
}
