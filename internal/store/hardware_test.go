package store

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"qgjob"
)

func TestHardwareIsKept(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		report := phone("R58M")
		for _, want := range []qgjob.Hardware{{ScreenWidth: 1080, ScreenHeight: 2340, BatteryPercent: 80, FreeStorage: 5 << 40, ABIs: "arm64-v8a,armeabi-v7a"}, {BatteryPercent: 79}} {
			report.Hardware = want
			if _, err := q.Register(t.Context(), "w", "host", "test", []DeviceReport{report}); err != nil {
				t.Fatal(err)
			}
			devices, err := q.Devices(t.Context(), "")
			if err != nil || len(devices) != 1 {
				t.Fatalf("%+v %v", devices, err)
			}
			if diff := cmp.Diff(want, devices[0].Hardware); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		}
	})
}
