package guard

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync/atomic"
)

// Certificates are what a TLS server shows, and whom it lets in; Load takes them up again from their files while
// connections go on.
type Certificates struct {
	Cert, Key string // files in PEM
	ClientCA  string // file in PEM of those who sign clients' certificates; empty: clients need none

	config atomic.Pointer[tls.Config]
}

// Load reads the files. Where it fails, what was loaded before stays.
func (c *Certificates) Load() error {
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return fmt.Errorf("tls: certificate %s and key %s: %w", c.Cert, c.Key, err)
	}
	t := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if c.ClientCA != "" {
		pem, err := os.ReadFile(c.ClientCA)
		if err != nil {
			return fmt.Errorf("tls: certificates of clients: %w", err)
		}
		t.ClientCAs, t.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !t.ClientCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("tls: %s has no certificate in PEM", c.ClientCA)
		}
	}
	c.config.Store(t)
	return nil
}

// Config is for a server; it is valid after the first Load.
func (c *Certificates) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.config.Load(), nil },
		// The server asks for a certificate before the first connection; it is never shown.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &c.config.Load().Certificates[0], nil
		},
	}
}

// Files are those that Load reads.
func (c *Certificates) Files() []string {
	files := []string{c.Cert, c.Key}
	if c.ClientCA != "" {
		files = append(files, c.ClientCA)
	}
	return files
}
