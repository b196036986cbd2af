package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/quarxtor/quarxfs/remote/cluster"
	"github.com/quarxtor/quarxfs/remote/cluster/client"
	"github.com/quarxtor/quarxfs/remote/cluster/pki"
)

// Join makes the node of d one of the cluster of s.Token: client.ErrSetUp, and what
// client.Agent.Join returns. The cluster counts it as a node from then on.
func (d Dir) Join(ctx context.Context, s client.SetUp, now func() time.Time) error {
	token, err := pki.ParseToken(s.Token)
	if err != nil {
		return err
	}
	return d.make(s, func(n cluster.Node, request []byte) (Settings, error) {
		// After a lost answer the node asks again, and the cluster knows it by its ID.
		n.ID = pendingID(token, s.Name)
		n.Peer, n.Client = s.Addr(1), s.Addr(2)
		answer, err := client.Remote(token.Address, token.Join()).Join(ctx, client.JoinRequest{
			Protocol: client.Protocol, Secret: token.Secret, Node: n, Witness: s.Witness, Request: request, Time: now(),
		})
		if err != nil {
			return Settings{}, joinError(token.Address, err)
		}
		n = answer.Node
		ca, err := pki.ParseCertificate(answer.Authority)
		if err == nil && pki.Fingerprint(ca) != token.Authority {
			err = pki.ErrAuthority
		}
		if err == nil {
			err = d.keepCertificates(&n, answer.Certificate, answer.Authority, answer.Signer)
		}
		if err == nil {
			_, err = d.identity()
		}
		return Settings{Cluster: answer.Cluster, Node: n, Clients: answer.Clients}, err
	})
}

// pendingID is the node's for this token, so that a node that asks twice is one.
func pendingID(token pki.Token, name string) string {
	return cluster.HashSecret(token.Secret + " " + name)[:32]
}

func joinError(addr string, err error) error {
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return fmt.Errorf("%w: %w", client.ErrClock, err)
	}
	return fmt.Errorf("join through %s: %w", addr, err)
}
