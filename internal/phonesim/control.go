package phonesim

import (
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// State is what is on the phone's screen.
type State struct {
	Serial     string         `json:"serial"`
	Addr       string         `json:"addr"` // for adb connect
	Foreground string         `json:"foreground"`
	Screen     string         `json:"screen,omitempty"` // of the app in front
	Texts      []string       `json:"texts"`            // all that can be read, from top to bottom
	Processes  map[string]int `json:"processes"`
	Booted     bool           `json:"booted"`
	Faults     []ArmedFault   `json:"faults"`
}

// State returns what is on the screen now.
func (p *Phone) State() State {
	faults, now := p.Faults(), time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tree(now, false)
	s := State{
		Serial: p.options.Serial, Addr: p.Addr(), Foreground: p.foreground.pkg, Texts: []string{}, Processes: map[string]int{},
		Booted: p.bootCompleted(now), Faults: faults,
	}
	if t.app != nil {
		s.Screen = t.app.top().screen
	}
	t.root.each(func(n *node) bool {
		if n.text != "" {
			s.Texts = append(s.Texts, n.text)
		}
		return true
	})
	for name, pid := range p.pids {
		s.Processes[name] = pid
	}
	return s
}

// Screenshot returns the screen as a PNG.
func (p *Phone) Screenshot() []byte {
	p.mu.Lock()
	t := p.tree(time.Now(), false)
	p.mu.Unlock()
	return t.screenshot()
}

// Control lets another process read the truth and break the phone:
//
//	GET    /ledger          the Ledger
//	GET    /state           the State
//	GET    /screenshot.png  the screen
//	GET    /fault           the faults that are set
//	PUT    /fault           sets the Fault in the body
//	DELETE /fault           clears all, or the one of ?kind=
//
// Answers are JSON; what is refused is answered with 400 and {"error": ...}.
func (p *Phone) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ledger", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, p.Ledger()) })
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, p.State()) })
	mux.HandleFunc("GET /screenshot.png", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		_, _ = w.Write(p.Screenshot()) // the client may be gone
	})
	mux.HandleFunc("GET /fault", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, p.Faults()) })
	mux.HandleFunc("PUT /fault", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
		if err == nil {
			err = decodeStrict(body, &f)
		}
		if err == nil {
			err = p.SetFault(f)
		}
		if err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		writeJSON(w, http.StatusOK, p.Faults())
	})
	mux.HandleFunc("DELETE /fault", func(w http.ResponseWriter, r *http.Request) {
		if kind := r.URL.Query().Get("kind"); kind != "" {
			p.ClearFault(kind)
		} else {
			p.ClearFaults()
		}
		writeJSON(w, http.StatusOK, p.Faults())
	})
	return mux
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
