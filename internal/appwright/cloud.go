package appwright

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
	"time"

	"qgjob"
)

// cloudBuildAt is where AppWright is told to upload the build from. Of an address it sends nothing but the address, and
// the worker has uploaded the build.
const cloudBuildAt = "https://qgjob.invalid/"

// cloudFront is what AppWright reaches in the place of *.browserstack.com, whose names are fixed in it: the hub
// is the run's session proxy, the REST interface the endpoint's. It speaks TLS with a certificate that only
// the run's processes trust. The tests have no credentials: the endpoint does.
type cloudFront struct {
	proxy    *proxy
	rest     *httputil.ReverseProxy
	server   http.Server
	listener net.Listener
	served   chan error
}

// openCloud puts it before the run's proxy, which ends it, and returns the variables by which AppWright finds
// it: none where the sessions are not made on a cloud.
func (r Run) openCloud(t tools, p *proxy) ([]string, error) {
	if !r.Upstream.Cloud {
		return nil, nil
	}
	certFile := t.path("cloud.pem")
	if err := p.standBefore(certFile); err != nil {
		return nil, err
	}
	return p.cloud.environment(certFile), nil
}

// standBefore makes p.cloud: it listens on a loopback port of its own and writes its certificate to a file.
func (p *proxy) standBefore(certFile string) error {
	pair, certificate, err := selfSigned(time.Now())
	if err != nil {
		return err
	}
	if err := os.WriteFile(certFile, certificate, 0o600); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c := &cloudFront{proxy: p, listener: listener, served: make(chan error, 1)}
	c.rest = &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(p.upstream) },
		Transport:      p.forward.Transport,
		ModifyResponse: c.observe,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				c.failed(r, err.Error())
			}
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	c.server.Handler = c
	c.server.ErrorLog = log.New(io.Discard, "", 0)
	go func() {
		c.served <- c.server.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}))
	}()
	p.cloud = c
	return nil
}

// close ends it when the runner has ended, after a session that is still being made.
func (c *cloudFront) close() {
	grace, cancel := context.WithTimeout(c.proxy.life, createGrace)
	defer cancel()
	if c.server.Shutdown(grace) != nil {
		c.server.Close()
	}
	<-c.served
}

// environment lets AppWright find it.
func (c *cloudFront) environment(certFile string) []string {
	return []string{
		"QGJOB_CLOUD_PORT=" + strconv.Itoa(c.listener.Addr().(*net.TCPAddr).Port),
		"QGJOB_CLOUD_CERT=" + certFile,
		"BROWSERSTACK_USERNAME=qgjob", // AppWright asks that they be set
		"BROWSERSTACK_ACCESS_KEY=qgjob",
	}
}

func (c *cloudFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, _, _ := strings.Cut(r.Host, ":")
	r.Header.Del("Authorization")
	if !strings.HasPrefix(host, "hub") {
		c.rest.ServeHTTP(w, r)
		return
	}
	r.URL.Path = strings.TrimPrefix(r.URL.Path, "/wd/hub")
	r.URL.RawPath = strings.TrimPrefix(r.URL.RawPath, "/wd/hub")
	c.proxy.ServeHTTP(w, r)
}

// observe looks at the REST interface's answers: AppWright makes a failed test of one that is an error.
func (c *cloudFront) observe(answer *http.Response) error {
	if answer.StatusCode < 500 {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxErrorBody))
	answer.Body.Close()
	answer.Body = io.NopCloser(bytes.NewReader(body))
	var told struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &told) != nil || told.Error == "" {
		told.Error = fmt.Sprintf("BrowserStack's REST interface answers %s", answer.Status)
	}
	c.failed(answer.Request, told.Error)
	return err
}

func (c *cloudFront) failed(r *http.Request, message string) {
	c.proxy.record(CommandError{Method: r.Method, Command: "app-automate", Code: codeUnknown, Message: message, Cause: qgjob.CauseCloudUnreachable})
}

// selfSigned makes a certificate for BrowserStack's hosts that lives a day.
func selfSigned(now time.Time) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "qgjob, for one run"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), DNSNames: []string{"browserstack.com", "*.browserstack.com"},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pair, err := tls.X509KeyPair(certificate, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}))
	return pair, certificate, err
}
