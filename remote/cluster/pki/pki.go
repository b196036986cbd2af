// Package pki has the cluster's certificate authority and its join tokens.
//
// Every node has a certificate that the authority has signed, and shows it to all
// others, as client and as server. The authority's key is on the nodes that vote,
// so that any of them can admit a new one; it is in no register.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

// ErrFormat: not what it should be: a token, a certificate, a key.
var ErrFormat = errors.New("malformed")

const (
	organization = "QuarXFS cluster"
	lifetime     = 10 * 365 * 24 * time.Hour
	skew         = 24 * time.Hour // clocks differ when a certificate is new
)

// An Authority signs the nodes' certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one for the cluster of that ID.
func NewAuthority(id string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := template(id, now)
	c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	c.MaxPathLenZero = true // it signs nodes, and no further authorities
	c.NotAfter = now.Add(2 * lifetime)
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{cert: cert, key: key}, err
}

// LoadAuthority reads what Certificate and Key have returned.
func LoadAuthority(cert, key []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("the cluster's authority: %w: %w", ErrFormat, err)
	}
	secret, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("the cluster's authority: %w: not an authority's certificate", ErrFormat)
	}
	return &Authority{cert: pair.Leaf, key: secret}, nil
}

// Certificate is what others verify by, in PEM.
func (a *Authority) Certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Key is the authority's secret, in PEM.
func (a *Authority) Key() ([]byte, error) { return encodeKey(a.key) }

// Fingerprint is the SHA-256 of the certificate, 64 hex digits.
func (a *Authority) Fingerprint() string { return Fingerprint(a.cert) }

// Fingerprint is the SHA-256 of a certificate, 64 hex digits.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// Serial is the serial number of a certificate, in hex.
func Serial(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

// Revoke returns the list of the certificates that count no more, by their serial numbers, in
// DER: ErrFormat.
func (a *Authority) Revoke(serials []string, now time.Time) ([]byte, error) {
	list := x509.RevocationList{Number: big.NewInt(now.UnixMilli()), ThisUpdate: now.Add(-skew), NextUpdate: now.Add(lifetime)}
	for _, s := range serials {
		n, ok := new(big.Int).SetString(s, 16)
		if !ok {
			return nil, fmt.Errorf("serial number %q: %w", s, ErrFormat)
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: now})
	}
	// Authorities of before this list was made do not say that they may sign one; whoever reads
	// it here has the same authority's key.
	issuer := *a.cert
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	return x509.CreateRevocationList(rand.Reader, &list, &issuer, a.key)
}

// NewRequest makes a node's key, in PEM, and the request to sign it, in DER. The
// name is what others call the node; hosts are where they reach it.
func NewRequest(name string, hosts []string) (key, request []byte, err error) {
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
	for _, h := range append([]string{"localhost", "127.0.0.1", "::1"}, hosts...) {
		if ip := net.ParseIP(h); ip != nil {
			r.IPAddresses = append(r.IPAddresses, ip)
		} else {
			r.DNSNames = append(r.DNSNames, h)
		}
	}
	request, err = x509.CreateCertificateRequest(rand.Reader, r, secret)
	if err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(secret)
	return key, request, err
}

// Sign returns the certificate, in PEM, of the node that has made the request:
// ErrFormat, also if the request is for another name.
func (a *Authority) Sign(request []byte, name string, now time.Time) ([]byte, error) {
	r, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = r.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w: %w", ErrFormat, err)
	}
	if r.Subject.CommonName != name {
		return nil, fmt.Errorf("certificate request: %w: it is for %q, not for %q", ErrFormat, r.Subject.CommonName, name)
	}
	// Nothing else of the request is taken over: the one who asks must not choose what it may do.
	c := template(name, now)
	c.KeyUsage = x509.KeyUsageDigitalSignature
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	c.DNSNames, c.IPAddresses = r.DNSNames, r.IPAddresses
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, r.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func template(name string, now time.Time) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // never fails
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{organization}},
		NotBefore:    now.Add(-skew),
		NotAfter:     now.Add(lifetime),

		BasicConstraintsValid: true,
	}
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseCertificate reads one in PEM: ErrFormat.
func ParseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("certificate: %w", ErrFormat)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w: %w", ErrFormat, err)
	}
	return c, nil
}

// A Token is what a node needs to join: where to, who answers there, and a secret
// that counts once.
type Token struct {
	Address   string `json:"a"` // host:port of a node's agent
	Authority string `json:"f"` // the authority's fingerprint
	Secret    string `json:"s"`
}

const tokenPrefix = "quarxfs-join-"

// NewSecret returns 128 random bits as text.
func NewSecret() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// String is what people carry to the new node.
func (t Token) String() string {
	b, err := json.Marshal(t)
	if err != nil {
		panic(err) // three strings
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseToken reads what String has returned: ErrFormat.
func ParseToken(text string) (Token, error) {
	bad := fmt.Errorf("join token: %w: copy the whole line that quarxfs cluster token has printed", ErrFormat)
	encoded, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return Token{}, bad
	}
	b, err := base64.RawURLEncoding.DecodeString(encoded)
	var t Token
	if err != nil || json.Unmarshal(b, &t) != nil {
		return Token{}, bad
	}
	if _, _, err := net.SplitHostPort(t.Address); err != nil || len(t.Authority) != 64 || t.Secret == "" {
		return Token{}, bad
	}
	return t, nil
}
