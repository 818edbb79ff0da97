package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"qgjob/internal/device"
)

// TestDeployExamples looks at examples/deploy: each image that compose.yaml builds is a stage of the Dockerfile, and whatever runs a worker sees the host's
// locks of devices.
func TestDeployExamples(t *testing.T) {
	read := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join("..", "..", "examples", "deploy", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	dockerfile := read("Dockerfile")
	var compose struct {
		Services map[string]struct {
			Build struct {
				Context, Dockerfile, Target string
			}
			Volumes []any
			Secrets []string
		}
		Secrets, Volumes map[string]any
	}
	if err := yaml.Unmarshal([]byte(read("compose.yaml")), &compose); err != nil {
		t.Fatal(err)
	}
	for name, s := range compose.Services {
		if s.Build.Target != "" && !strings.Contains(dockerfile, " AS "+s.Build.Target+"\n") {
			t.Errorf("the Dockerfile has no stage %s, which service %s is built of", s.Build.Target, name)
		}
		for _, secret := range s.Secrets {
			if _, ok := compose.Secrets[secret]; !ok || !strings.Contains(dockerfile, "/run/secrets/"+secret+`"`) {
				t.Errorf("service %s is given secret %s, which is not there or which its command does not read", name, secret)
			}
		}
		for _, v := range s.Volumes {
			if short, ok := v.(string); ok {
				volume, _, _ := strings.Cut(short, ":")
				if _, ok := compose.Volumes[volume]; !ok {
					t.Errorf("service %s uses volume %s, which is not there", name, volume)
				}
			}
		}
	}
	mounted := false
	for _, v := range compose.Services["worker"].Volumes {
		if m, ok := v.(map[string]any); ok {
			mounted = mounted || m["source"] == device.HostLockDir && m["target"] == device.HostLockDir
		}
	}
	if !mounted {
		t.Errorf("the worker of compose.yaml does not share %s with its host", device.HostLockDir)
	}
	if !strings.Contains(read("qgjob-worker.service"), "\nPrivateTmp=no\n") {
		t.Errorf("the worker's unit has a /tmp of its own: it would not see %s", device.HostLockDir)
	}
}
