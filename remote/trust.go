package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Why a client does not talk to a server that is there.
var (
	ErrScheme    = errors.New("the URL's scheme is not the server's")
	ErrUntrusted = errors.New("the server's certificate is not trusted")
)

// explainTLS makes what the transport says of a connection that failed an error that says what to
// do; nil: it is about something else. It goes by the errors' types alone.
func explainTLS(req *http.Request, err error) error {
	host := req.URL.Host
	var record tls.RecordHeaderError
	if errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record) {
		return fmt.Errorf("%w: %s does not speak TLS: if that may be, use http://%s", ErrScheme, host, host)
	}
	var unknown *tls.CertificateVerificationError
	if errors.As(err, &unknown) && len(unknown.UnverifiedCertificates) > 0 {
		return fmt.Errorf("%w: nobody known here vouches for %s; if its owner says that the fingerprint is %s, give that with remote add --fingerprint"+
			" or in $QUARXFS_FINGERPRINT, or the certificate of its authority with --ca or in $QUARXFS_CA",
			ErrUntrusted, host, Fingerprint(unknown.UnverifiedCertificates[0].Raw))
	}
	// Only an alert of the other side is reported with this operation.
	if op := new(net.OpError); errors.As(err, &op) && op.Op == "remote error" && req.URL.Scheme == "https" {
		return fmt.Errorf("%w: %s wants to see a certificate, or another one: give it with remote add --cert and --key, or in $QUARXFS_CERT and $QUARXFS_KEY (%w)",
			ErrForbidden, host, op.Err)
	}
	return nil
}

// probeTime is how long a port is asked whether it speaks TLS.
const probeTime = 5 * time.Second

// explainPlain is for an answer to a plain request that no node gives: the port may be one for TLS,
// which is tried.
func explainPlain(req *http.Request, err error) error {
	if req.URL.Scheme != "http" {
		return err
	}
	ctx, cancel := context.WithTimeout(req.Context(), probeTime)
	defer cancel()
	// Nothing is said or believed on this connection, so nobody's certificate matters.
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	conn, derr := d.DialContext(ctx, "tcp", req.URL.Host)
	if derr != nil {
		return err
	}
	_ = conn.Close()
	return fmt.Errorf("%w: %s speaks TLS: use https://%s", ErrScheme, req.URL.Host, req.URL.Host)
}
