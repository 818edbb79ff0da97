package cli

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"qgjob"
	"qgjob/internal/server"
)

// environmentOptions are the variables that a submit gives its tests.
type environmentOptions struct {
	env     []string // NAME=value
	secrets []string // names
}

func (o *environmentOptions) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&o.env, "env", nil, "give the tests a variable, `NAME=value` (repeat for more)")
	f.StringArrayVar(&o.secrets, "secret", nil, "give the tests the variable of this `name` as it is in this command's environment; encrypted at rest, and masked in all that an attempt leaves (repeat for more)")
}

// read is the variables, and the secrets with the values that this command's environment has for them.
func (o *environmentOptions) read(p *program) (env, secrets map[string]string, err error) {
	env, secrets = map[string]string{}, map[string]string{}
	for _, variable := range o.env {
		name, value, ok := strings.Cut(variable, "=")
		if _, twice := env[name]; twice || !ok {
			return nil, nil, exitf(exitUsage, "--env %s: use NAME=value, each name once", name)
		}
		env[name] = value
	}
	for _, name := range o.secrets {
		if strings.Contains(name, "=") {
			return nil, nil, exitf(exitUsage, "--secret takes a name, not a value, which others on this machine could read: set the variable %s and write --secret=%[1]s", strings.SplitN(name, "=", 2)[0])
		}
		value := p.env(name)
		if value == "" {
			return nil, nil, exitf(exitUsage, "--secret %s: this command's environment has no such variable, or it is empty: set it, without putting it on a command line", name)
		}
		secrets[name] = value
	}
	if err := qgjob.CheckEnvironment(env, secrets); err != nil {
		return nil, nil, exitf(exitUsage, "%v", err)
	}
	return env, secrets, nil
}

// secretKey reads the key that seals secrets. Without a file of its own a server makes one in its data directory.
func secretKey(file, dataDir string) ([]byte, error) {
	path := file
	if path == "" {
		path = filepath.Join(dataDir, "secret.key")
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && file == "" {
		return makeSecretKey(path)
	}
	if err != nil {
		return nil, exitf(exitUsage, "--secret-key-file: %v: make one, for example with openssl rand -hex %d > FILE", err, server.SecretKeySize)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != server.SecretKeySize {
		return nil, exitf(exitUsage, "secret key %s: it must hold %d bytes in hexadecimal, for example of openssl rand -hex %[2]d", path, server.SecretKeySize)
	}
	return key, nil
}

// makeSecretKey makes the key of a data directory, unless another server that shares it was faster.
func makeSecretKey(path string) ([]byte, error) {
	file, err := os.CreateTemp(filepath.Dir(path), "secret-*.key")
	if err == nil {
		defer os.Remove(file.Name())
		_, err = file.WriteString(hex.EncodeToString(server.NewSecretKey()) + "\n")
		err = errors.Join(err, file.Sync(), file.Close())
	}
	if err == nil {
		err = os.Link(file.Name(), path)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, exitf(exitInfrastructure, "the key for secrets cannot be made: %v", err)
	}
	return secretKey(path, "")
}
