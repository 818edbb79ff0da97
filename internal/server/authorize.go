package server

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"qgjob"
)

// Token is the SHA-256 of a bearer token: the server never keeps the token itself.
type Token [sha256.Size]byte

// minTokenLength keeps guessable tokens out: 128 bits in hexadecimal or more.
const minTokenLength = 32

// ParseTokens reads a token file: one token a line, of 32 characters or more; empty lines and lines that
// start with # count for nothing. A file without a token is an error.
func ParseTokens(r io.Reader) ([]Token, error) {
	var tokens []Token
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		if len(text) < minTokenLength || strings.ContainsAny(text, " \t") {
			return nil, qgjob.Errorf(qgjob.CodeInvalid, "line %d holds no token: a token has %d characters or more and no spaces, such as `openssl rand -hex 32` prints", n, minTokenLength)
		}
		tokens = append(tokens, sha256.Sum256([]byte(text)))
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(tokens) == 0 {
		return nil, qgjob.Errorf(qgjob.CodeInvalid, "the file holds no token: put one on a line, such as `openssl rand -hex 32` prints")
	}
	return tokens, nil
}

// CheckListen refuses to serve without tokens on an address that other machines can reach. addr is a
// host and port as net.Listen takes them.
func CheckListen(addr string, hasTokens bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return qgjob.Errorf(qgjob.CodeInvalid, "listen address %q cannot be used: give host and port, such as 127.0.0.1:8000", addr)
	}
	if hasTokens || isLoopback(host) {
		return nil
	}
	return qgjob.Errorf(qgjob.CodeInvalid, "%s can be reached from other machines: a server there needs tokens; give a token file, or listen on 127.0.0.1", addr)
}

// isLoopback says whether a host name or address means this machine for certain.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// Principal is who makes a request, and what it may reach.
type Principal struct {
	OrgID string // empty: every organization
}

// mayUse refuses a request that names an organization that is not the principal's.
func (p Principal) mayUse(org string) error {
	if err := qgjob.CheckID("org_id", org); err != nil {
		return err
	}
	if p.OrgID != "" && p.OrgID != org {
		return qgjob.Errorf(qgjob.CodeUnauthorized, "this token does not belong to organization %s", org)
	}
	return nil
}

// narrow returns the organization to look into when the request names one, or none.
func (p Principal) narrow(org string) (string, error) {
	if org == "" {
		return p.OrgID, nil
	}
	return org, p.mayUse(org)
}

type principalKey struct{}

// principalOf returns who makes the request. Each handler asks before it asks the store.
func principalOf(ctx context.Context) Principal {
	return ctx.Value(principalKey{}).(Principal)
}

// open says whether a path is for everybody: monitoring, and what a browser shows of the API, which holds
// nobody's data.
func open(path string) bool {
	return path == "/health" || path == "/docs" || strings.HasPrefix(path, "/docs/") || path == "/openapi.json" || path == "/openapi.yaml"
}

// authorize decides who makes a request: the one place where it is decided. With tokens, everything but
// /health and the API's documentation needs one. Without, the server is on loopback and trusts this machine's users, but neither
// their browsers' other pages nor names that somebody else's DNS points at it.
func (s *Server) authorize(r *http.Request) (Principal, error) {
	if len(s.tokens) == 0 {
		return Principal{}, checkLocal(r)
	}
	if open(r.URL.Path) {
		return Principal{}, nil
	}
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || text == "" {
		return Principal{}, qgjob.Errorf(qgjob.CodeUnauthorized, "this server needs a token: send it as Authorization: Bearer, or set QGJOB_TOKEN")
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(text)))
	found := 0
	for _, known := range s.tokens {
		found |= subtle.ConstantTimeCompare(sum[:], known[:])
	}
	if found == 0 {
		return Principal{}, qgjob.Errorf(qgjob.CodeUnauthorized, "this server does not know the token: check QGJOB_TOKEN, or ask who runs the server for another")
	}
	return Principal{}, nil
}

// checkLocal refuses requests that a web page of somebody else made the user's browser send.
func checkLocal(r *http.Request) error {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if !isLoopback(host) {
		return newProblem(http.StatusForbidden, qgjob.CodeUnauthorized,
			"a server without tokens answers to localhost, 127.0.0.1 and [::1] only, not to "+shown(r.Host))
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	if u, err := url.Parse(origin); err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
		return newProblem(http.StatusForbidden, qgjob.CodeUnauthorized,
			"a server without tokens takes no requests from web pages of other origins, such as "+shown(origin))
	}
	return nil
}
