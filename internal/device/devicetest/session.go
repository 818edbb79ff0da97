package devicetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"testing"

	"qgjob"
	"qgjob/internal/device"
)

// OpenSession makes a session at an endpoint as a test runner's client does, asking for what stock AppWright
// asks for, with the endpoint's capabilities forced over that, and returns the session's id.
func OpenSession(ctx context.Context, e device.Endpoint, b device.Build) (string, error) {
	caps := map[string]any{
		"platformName":                "Android",
		"appium:automationName":       "uiautomator2",
		"appium:app":                  b.Path,
		"appium:appPackage":           b.Package,
		"appium:appActivity":          b.Activity,
		"appium:fullReset":            true,
		"appium:autoGrantPermissions": true,
		"bstack:options":              map[string]any{"deviceName": "Google Pixel 8", "osVersion": "14.0", "buildName": "tests android"},
	}
	if e.Cloud && b.Platform == qgjob.PlatformIOS {
		caps = map[string]any{
			"appium:app": b.Path, "appium:fullReset": true, "appium:autoGrantPermissions": true, "appium:autoAcceptAlerts": true,
			"bstack:options": map[string]any{"deviceName": "iPhone 15", "osVersion": "17", "platformName": "ios", "buildName": "tests ios"},
		}
	}
	if !e.Cloud {
		delete(caps, "bstack:options")
	}
	maps.Copy(caps, e.Capabilities)
	maps.DeleteFunc(caps, func(_ string, v any) bool { return v == nil })
	var made struct {
		SessionID string `json:"sessionId"`
	}
	err := Command(ctx, e, http.MethodPost, "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": caps, "firstMatch": []any{map[string]any{}}}}, &made)
	return made.SessionID, err
}

// Command sends one WebDriver command and reads the answer's value.
func Command(ctx context.Context, e device.Endpoint, method, path string, body, value any) error {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, e.URL+path, content)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %.2000s", method, path, res.Status, data)
	}
	if value == nil {
		return nil
	}
	return json.Unmarshal(data, &struct {
		Value any `json:"value"`
	}{value})
}

func openSession(t *testing.T, e device.Endpoint, b device.Build) string {
	t.Helper()
	id, err := OpenSession(t.Context(), e, b)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
