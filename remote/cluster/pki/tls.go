package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// An Identity is a node's own certificate and key, and the authority that it trusts.
type Identity struct {
	pair  tls.Certificate
	roots *x509.CertPool
}

// LoadIdentity reads them, in PEM: ErrFormat, also if the authority has not signed the certificate.
func LoadIdentity(cert, key, authority []byte) (*Identity, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("the node's certificate: %w: %w", ErrFormat, err)
	}
	ca, err := ParseCertificate(authority)
	if err != nil {
		return nil, err
	}
	if err := pair.Leaf.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("the node's certificate: %w: it is of another cluster: %w", ErrFormat, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &Identity{pair: pair, roots: roots}, nil
}

// Fingerprint is that of the node's certificate.
func (i *Identity) Fingerprint() string { return Fingerprint(i.pair.Leaf) }

// Expires is when the node's certificate ends.
func (i *Identity) Expires() time.Time { return i.pair.Leaf.NotAfter }

// Client is for connections to other nodes.
func (i *Identity) Client() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{i.pair}, RootCAs: i.roots}
}

// Server is for connections from nodes, and from those that have no certificate
// yet: a handler looks at what was verified.
func (i *Identity) Server() *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{i.pair},
		ClientCAs:    i.roots,
		ClientAuth:   tls.VerifyClientCertIfGiven,
	}
}

// ErrAuthority: who answers is not of the token's cluster.
var ErrAuthority = errors.New("who answers there is not a node of the token's cluster")

// Join is for the one connection that a node makes before it has a certificate. It
// trusts the authority of the fingerprint, and no clock: this machine's may be wrong,
// and is compared afterwards with that of the node that answers.
func (t Token) Join() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection does it, by the fingerprint
		VerifyConnection: func(c tls.ConnectionState) error {
			for _, ca := range c.PeerCertificates[1:] {
				if Fingerprint(ca) != t.Authority {
					continue
				}
				roots := x509.NewCertPool()
				roots.AddCert(ca)
				leaf := c.PeerCertificates[0]
				_, err := leaf.Verify(x509.VerifyOptions{
					Roots: roots, CurrentTime: leaf.NotBefore.Add(time.Second),
					KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
				})
				if err != nil {
					return fmt.Errorf("%w: %w", ErrAuthority, err)
				}
				return nil
			}
			return ErrAuthority
		},
	}
}
