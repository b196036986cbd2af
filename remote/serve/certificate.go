package serve

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/durable"
	"github.com/quarxtor/quarxfs/tiering/keyfile"
)

// A certificate is read anew when its files have changed, so that one that was
// renewed is shown without a new start.
type certificate struct {
	cert, key string
	mu        struct {
		sync.Mutex
		looked time.Time
		stamp  [2]time.Time // of both files, as now was read
		now    *tls.Certificate
	}
}

const lookEvery = time.Minute

// load is for who holds mu, or has c alone.
func (c *certificate) load() error {
	stamp := c.stamp()
	pair, err := keyfile.Pair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("%w: certificate %s: %v", store.ErrConfig, c.cert, err)
	}
	c.mu.now, c.mu.stamp, c.mu.looked = &pair, stamp, time.Now()
	return nil
}

func (c *certificate) stamp() (s [2]time.Time) {
	for i, path := range []string{c.cert, c.key} {
		if info, err := os.Stat(path); err == nil {
			s[i] = info.ModTime()
		}
	}
	return s
}

// get is tls.Config's GetCertificate. One that cannot be read leaves the old one.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.mu.looked) > lookEvery {
		c.mu.looked = time.Now()
		if c.stamp() != c.mu.stamp {
			_ = c.load()
		}
	}
	return c.mu.now, nil
}

// selfSigned is the file in a store's directory with a certificate that was made
// here, and its key.
const selfSigned = "listen.pem"

// SelfSigned returns the path of the store's own certificate and key, both in one
// file. It is made when there is none, for this machine's names and for good: a
// peer trusts it by its fingerprint. The caller has the store open.
func SelfSigned(dir string) (string, error) {
	path := filepath.Join(dir, selfSigned)
	_, err := os.Stat(path)
	if !errors.Is(err, os.ErrNotExist) {
		return path, err
	}
	b, err := makeCertificate(time.Now())
	if err == nil {
		err = durable.Write(path, b)
	}
	if err != nil {
		return "", fmt.Errorf("make a certificate: %w", err)
	}
	return path, nil
}

func makeCertificate(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	c := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: host, Organization: []string{"QuarXFS"}},
		NotBefore:    now.Add(-24 * time.Hour),                         // clocks differ
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5: no end
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     []string{host, "localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},

		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = errors.Join(
		pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	return out.Bytes(), err
}
