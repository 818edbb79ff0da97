package qgjob_test

import (
	"strings"
	"testing"

	"qgjob"
)

var pixel = qgjob.Traits{ID: "R58M", Kind: qgjob.TargetDevice, Platform: "android", Model: "Pixel 7 Pro", OSVersion: "14.1", ABIs: "arm64-v8a,armeabi-v7a", Tags: []string{"lab", "5g"}}

func TestRequirements(t *testing.T) {
	for text, mismatch := range map[string]string{
		"":                          "",
		"platform=android":          "",
		"platform=iOS":              "runs android, not ios",
		"os>=12, os<15":             "",
		"os=14":                     "",
		"os<=14":                    "",
		"os>14":                     "has os 14.1, not os>14",
		"os=14.2":                   "has os 14.1, not os=14.2",
		"os>=14.0.1":                "",
		"model=pixel *":             "",
		"model=Galaxy S2?|Pixel 7*": "",
		"model=Pixel ?":             "is a Pixel 7 Pro, not a Pixel ?",
		"model=*Pro":                "",
		"model=*x*":                 "",
		"tag=lab, tag=5g":           "",
		"tag=rack":                  "has no tag rack",
		"device=R58M":               "",
		"device=R59":                "is not R59",
		"min-os=14.0.1":             "",
		"min-os=15":                 "has os 14.1, and the build needs 15 or newer",
		"abi=x86|armeabi-v7a":       "",
		"abi=x86_64|x86":            "runs arm64-v8a and armeabi-v7a, and the build is for x86 or x86_64",
	} {
		r, err := qgjob.ParseRequirement(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := r.Mismatch(pixel); got != mismatch {
			t.Errorf("%q: mismatch %q, want %q", text, got, mismatch)
		}
		if again, err := qgjob.ParseRequirement(r.String()); err != nil || again.String() != r.String() {
			t.Errorf("%q: its form %q reads as %q (%v)", text, r.String(), again.String(), err)
		}
	}
	r, err := qgjob.ParseRequirement("os>=12")
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Mismatch(qgjob.Traits{ID: "d"}); got != "has os something unknown, not os>=12" {
		t.Errorf("an unknown version: %q", got)
	}
}

// What is for iPhones says so, and a build may try a device of which nothing is known yet.
func TestPlatformsAndBuilds(t *testing.T) {
	iPhone := qgjob.Traits{ID: "I", Kind: qgjob.TargetDevice, Platform: "ios", Model: "iPhone 16", OSVersion: "18.2"}
	for text, fits := range map[string]bool{"": false, "os>=17": false, "platform=ios": true, "device=I": true, "platform=ios, min-os=18.2": true, "platform=ios, min-os=18.3": false} {
		r, err := qgjob.ParseRequirement(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Mismatch(iPhone); (got == "") != fits {
			t.Errorf("%q on an iPhone: %q", text, got)
		}
	}
	slot := qgjob.Traits{ID: "S", Kind: qgjob.TargetBrowserStack, Platform: qgjob.PlatformAny, Model: "BrowserStack"}
	for text, takes := range map[string]string{
		"": "android", "platform=android, abi=x86": "android", "platform=ios, min-os=17": "ios", "device=S": "android", "os>=12": "", "model=iPhone*": "",
	} {
		r, err := qgjob.ParseRequirement(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Mismatch(slot); (got == "") != (takes != "") || takes != "" && r.Takes(slot.Platform) != takes {
			t.Errorf("%q on a cloud's slot: %q, as %s", text, got, r.Takes(slot.Platform))
		}
	}
	if got := (qgjob.Requirement{MinOS: "14", ABIs: []string{"x86_64"}}).Mismatch(qgjob.Traits{ID: "avd", Platform: "android"}); got != "" {
		t.Errorf("a build on a device that has not booted yet: %q", got)
	}
}

func TestRequirementsHaveOneForm(t *testing.T) {
	a, _ := qgjob.ParseRequirement("tag=b,os<15,tag=a , os >= 12,model=P*|G*")
	b, _ := qgjob.ParseRequirement("model=G*|P*, os>=12, tag=a, tag=b, tag=a, os<15")
	if a.String() != b.String() || a.String() != "os<15, os>=12, model=G*|P*, tag=a, tag=b" {
		t.Errorf("%q and %q", a, b)
	}
}

func TestBadRequirements(t *testing.T) {
	for text, want := range map[string]string{
		"android":                     `device requirement "android" compares nothing`,
		"os>=":                        `device requirement "os>=" has no value`,
		"os=>12":                      `device requirement "os=>12" has no value`,
		"os>=twelve":                  `os version "twelve" is none`,
		"model>Pixel":                 `only os can be compared with >`,
		"platform=windows":            `platform "windows" is unknown: use android or ios`,
		"color=red":                   `"color" is unknown: use platform, os, model, tag or device`,
		"device=a, device=b":          `device=a and device=b: no device is both`,
		"model=a||b":                  `has an empty pattern`,
		"min-os=new":                  `min-os version "new" is none`,
		"abi=x86|":                    `"" is no instruction set`,
		"os>=15, os<15":               `no version is os>=15 and os<15`,
		"os>14, os<=14":               `no version is os>14 and os<=14`,
		",":                           `compares nothing`,
		strings.Repeat("tag=x,", 200): `at most 1000 are allowed`,
	} {
		_, err := qgjob.ParseRequirement(text)
		if err == nil || !strings.Contains(err.Error(), want) || qgjob.ErrorCode(err) != qgjob.CodeInvalid {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func FuzzRequirement(f *testing.F) {
	f.Add("platform=android, os>=12, model=Pixel *|G?, tag=lab")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := qgjob.ParseRequirement(text)
		if err != nil {
			return
		}
		r.Mismatch(pixel)
		if again, err := qgjob.ParseRequirement(r.String()); err != nil || again.String() != r.String() {
			t.Fatalf("%q: its form %q reads as %q (%v)", text, r.String(), again.String(), err)
		}
	})
}
