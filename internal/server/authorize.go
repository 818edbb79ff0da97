package server

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"qgjob"
)

// Token is the SHA-256 of a bearer token, since the server never keeps the token itself, and who shows it.
type Token struct {
	sum [sha256.Size]byte
	of  Principal
}

// minTokenLength keeps guessable tokens out: 128 bits in hexadecimal or more.
const minTokenLength = 32

// ParseTokens reads a token file: one token a line, of 32 characters or more, and behind it what it opens: worker,
// org=ID, or everything when there is nothing. Empty lines and lines that start with # count for nothing. A file
// without a token is an error, and so is one that says of one token two things.
func ParseTokens(r io.Reader) ([]Token, error) {
	var tokens []Token
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		token, err := parseToken(words)
		if err != nil {
			return nil, qgjob.Errorf(qgjob.CodeInvalid, "line %d: %w", n, err)
		}
		for _, other := range tokens {
			if other.sum == token.sum {
				return nil, qgjob.Errorf(qgjob.CodeInvalid, "line %d holds the token of a line before: each needs one of its own", n)
			}
		}
		tokens = append(tokens, token)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(tokens) == 0 {
		return nil, qgjob.Errorf(qgjob.CodeInvalid, "the file holds no token: put one on a line, such as `openssl rand -hex 32` prints")
	}
	return tokens, nil
}

// parseToken reads a line's words. Its errors never show the token.
func parseToken(words []string) (Token, error) {
	isForeign := func(r rune) bool { return r <= ' ' || r > '~' } // such as a byte order mark, which no client would send
	switch {
	case len(words[0]) < minTokenLength || strings.HasPrefix(words[0], "org="):
		return Token{}, fmt.Errorf("a token has %d characters or more, such as `openssl rand -hex 32` prints, and comes first on its line", minTokenLength)
	case strings.ContainsFunc(words[0], isForeign):
		return Token{}, errors.New("a token is made of ASCII letters, digits and signs: save the file as plain text without a byte order mark")
	}
	t := Token{sum: sha256.Sum256([]byte(words[0]))}
	if len(words) == 1 {
		return t, nil
	}
	org, isOrg := strings.CutPrefix(words[1], "org=")
	switch {
	case len(words) > 2 || !isOrg && words[1] != "worker":
		return Token{}, errors.New("behind a token stands what it opens: worker, org=ID, or nothing for everything")
	case isOrg:
		t.of.OrgID = org
		return t, qgjob.CheckID("org", org)
	}
	t.of.Worker = true
	return t, nil
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

// Principal is who makes a request, and what it may reach: everything, unless it is bound to an organization or
// is a worker.
type Principal struct {
	OrgID  string // a client of this organization alone
	Worker bool
}

// access is which bound principals may call an operation. One that is not bound may call all.
type access int

const (
	operators access = 0 // nobody who is bound: it changes what all organizations share
	clients   access = 1 // those of an organization, within it
	workers   access = 2
)

// mayCall refuses a principal that is bound and not of those who may.
func (p Principal) mayCall(who access) error {
	if p.Worker && who&workers == 0 {
		return newProblem(http.StatusForbidden, qgjob.CodeUnauthorized, "this token is a worker's and opens nothing else: use a client's")
	}
	if p.OrgID != "" && who&clients == 0 {
		return newProblem(http.StatusForbidden, qgjob.CodeUnauthorized,
			"this token belongs to organization "+p.OrgID+", and this is not for one organization to do: whoever runs the server can")
	}
	return nil
}

// allowed says whether a request is of somebody who may make it, and answers it when it is not.
func allowed(w http.ResponseWriter, r *http.Request, who access) bool {
	err := principalOf(r.Context()).mayCall(who)
	if err != nil {
		writeProblem(w, problemOf(err))
	}
	return err == nil
}

// mayUse refuses a request that names an organization that is not the principal's.
func (p Principal) mayUse(org string) error {
	if err := qgjob.CheckID("org_id", org); err != nil {
		return err
	}
	if p.OrgID != "" && p.OrgID != org {
		return newProblem(http.StatusForbidden, qgjob.CodeUnauthorized, "this token belongs to organization "+p.OrgID+", not to "+shown(org))
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
// /health and the API's documentation needs one; what a bound one opens each operation decides. Without, the server is on loopback and trusts this machine's users, but neither
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
	found := -1
	for i, known := range s.tokens {
		if subtle.ConstantTimeCompare(sum[:], known.sum[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return Principal{}, qgjob.Errorf(qgjob.CodeUnauthorized, "this server does not know the token: check QGJOB_TOKEN, or ask who runs the server for another")
	}
	return s.tokens[found].of, nil
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
