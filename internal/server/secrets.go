package server

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/store"
)

// SecretKeySize is the size of the key that secrets are sealed with, in bytes.
const SecretKeySize = 32

// secretsKept is for how long a run can be retried with its secrets.
const secretsKept = 7 * 24 * time.Hour

// sealer seals the secrets of runs for the database: AES-256 in Galois/Counter Mode, bound to the organization.
type sealer struct {
	aead   cipher.AEAD
	prefix string // names the form and the key
}

func newSealer(key []byte) (*sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	name := sha256.Sum256(append([]byte("qgjob secret key "), key...))
	return &sealer{aead, "v1:" + hex.EncodeToString(name[:6]) + ":"}, nil
}

// NewSecretKey makes a key.
func NewSecretKey() []byte {
	key := make([]byte, SecretKeySize)
	rand.Read(key)
	return key
}

func (s *sealer) seal(org string, secrets map[string]string) (string, error) {
	if len(secrets) == 0 {
		return "", nil
	}
	plain, err := json.Marshal(secrets)
	if err != nil {
		return "", err
	}
	return s.prefix + base64.StdEncoding.EncodeToString(s.aead.Seal(nil, nil, plain, []byte(org))), nil
}

func (s *sealer) open(org, sealed string) (map[string]string, error) {
	coded, ok := strings.CutPrefix(sealed, s.prefix)
	if !ok {
		return nil, qgjob.Errorf(qgjob.CodeConflict, "the secrets of the run were sealed with another server's key: give all servers of a database one --secret-key-file, and submit again")
	}
	text, err := base64.StdEncoding.DecodeString(coded)
	if err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	plain, err := s.aead.Open(nil, nil, text, []byte(org))
	if err != nil {
		return nil, fmt.Errorf("open secrets: %w", err)
	}
	var secrets map[string]string
	return secrets, json.Unmarshal(plain, &secrets)
}

// TakeSecrets makes this server's key the one of its database. It refuses where runs wait whose secrets this server could not open.
func (s *Server) TakeSecrets(ctx context.Context) error {
	other, err := s.store.SealedOtherwise(ctx, s.sealer.prefix)
	if err != nil {
		return err
	}
	if other {
		return qgjob.Errorf(qgjob.CodeConflict, "runs in the database have secrets that were sealed with another key: start this server with the --secret-key-file of the server that took them, or cancel those runs there")
	}
	return s.store.TakeSecretKey(ctx, s.sealer.prefix)
}

// mayOpen refuses secrets that another server of the database could not open, or this one.
func (s *Server) mayOpen(ctx context.Context, sealed string) error {
	if sealed == "" {
		return nil
	}
	name, err := s.store.SecretKey(ctx)
	if err == nil && (name != s.sealer.prefix || !strings.HasPrefix(sealed, name)) {
		err = qgjob.Errorf(qgjob.CodeConflict, "the secrets cannot be sealed so that every server of the database can open them, for a server with another key has started since: give all of them one --secret-key-file, and submit again")
	}
	return err
}

// environment checks the variables of a submit and seals its secrets.
func (s *Server) environment(ctx context.Context, r api.SubmitRequest) (store.Environment, error) {
	if err := qgjob.CheckEnvironment(r.Env, r.Secrets); err != nil {
		return store.Environment{}, err
	}
	sealed, err := s.sealer.seal(r.OrgID, r.Secrets)
	if err == nil {
		err = s.mayOpen(ctx, sealed)
	}
	return store.Environment{OrgID: r.OrgID, Variables: r.Env, SecretNames: slices.Sorted(maps.Keys(r.Secrets)), Sealed: sealed}, err
}

// environmentAgain is what a run has for its tests, for another one.
func (s *Server) environmentAgain(ctx context.Context, org, runID string) (store.Environment, error) {
	e, err := s.store.RunEnvironment(ctx, org, runID)
	if err == nil && len(e.SecretNames) > 0 && e.Sealed == "" {
		err = qgjob.Errorf(qgjob.CodeConflict, "the secrets of run %s (%s) are kept for %d days and are gone: submit its tests again", runID, strings.Join(e.SecretNames, ", "), secretsKept/(24*time.Hour))
	}
	if err == nil {
		err = s.mayOpen(ctx, e.Sealed)
	}
	return e, err
}

type attemptEnvironmentInput struct {
	ID    string `path:"id" doc:"UUID of the attempt"`
	Token string `header:"Qgjob-Lease-Token" required:"true" maxLength:"128"`
}

type attemptEnvironmentOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         api.AttemptEnvironment
}

// attemptEnvironment hands the variables of a run, secrets included, to the worker that holds the lease of its attempt.
func (s *Server) attemptEnvironment(ctx context.Context, in *attemptEnvironmentInput) (*attemptEnvironmentOutput, error) {
	id, err := parseUUID("attempt", in.ID)
	if err != nil {
		return nil, err
	}
	e, err := s.store.AttemptEnvironment(ctx, store.Lease{AttemptID: id, Token: in.Token})
	if err != nil {
		return nil, err
	}
	out := &attemptEnvironmentOutput{CacheControl: "no-store", Body: api.AttemptEnvironment{Env: e.Variables, Secrets: map[string]string{}}}
	if e.Sealed != "" {
		out.Body.Secrets, err = s.sealer.open(e.OrgID, e.Sealed)
	}
	return out, err
}
