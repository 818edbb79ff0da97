package phonesim

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// elementKey is how W3C WebDriver names an element's id in JSON.
const elementKey = "element-6066-11e4-a52e-4f735466cecf"

// driverError is an error of the WebDriver protocol: https://www.w3.org/TR/webdriver2/#errors.
type driverError struct {
	status       int
	code, detail string
}

func (e *driverError) Error() string { return e.code + ": " + e.detail }

func noSuchElement() error {
	return &driverError{http.StatusNotFound, "no such element", "An element could not be located on the page using the given search parameters"}
}

func invalidArgument(detail string) error {
	return &driverError{http.StatusBadRequest, "invalid argument", detail}
}

// uiaRequest is one command to the UiAutomator2 server.
type uiaRequest struct {
	phone           *Phone
	instrumentation *instrumentation
	http            *http.Request
	body            uiaBody
	now             time.Time
}

// uiaBody holds the fields of all commands; each uses its own.
type uiaBody struct {
	Strategy string   `json:"strategy"`
	Selector string   `json:"selector"`
	Context  string   `json:"context"`
	Using    string   `json:"using"`
	Value    anyValue `json:"value"`
	Text     *string  `json:"text"`
	Replace  bool     `json:"replace"`

	Origin      map[string]string `json:"origin"`
	Offset      *point            `json:"offset"`
	Area        *area             `json:"area"`
	Direction   string            `json:"direction"`
	Percent     float64           `json:"percent"`
	Start       *point            `json:"start"`
	End         *point            `json:"end"`
	Keycode     int               `json:"keycode"`
	Orientation string            `json:"orientation"`
	Content     string            `json:"content"`
	Settings    map[string]any    `json:"settings"`
	Actions     []actionSequence  `json:"actions"`
	Params      *uiaScrollParams  `json:"params"`

	// Of WebDriverAgent.
	X, Y                   float64
	FromX, FromY, ToX, ToY float64
	BundleID               string `json:"bundleId"`
	Capabilities           struct {
		FirstMatch []struct {
			BundleID string `json:"bundleId"`
		} `json:"firstMatch"`
	} `json:"capabilities"`
}

type uiaScrollParams struct {
	Strategy string `json:"strategy"`
	Selector string `json:"selector"`
}

type point struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

type area struct {
	Left   float64 `json:"left"`
	Top    float64 `json:"top"`
	Width  float64 `json:"width"`
	Height float64 `json:"height"`
}

// anyValue is a text, or a list of texts that belong together, as clients of different age send it.
type anyValue string

func (v *anyValue) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*v = anyValue(text)
		return nil
	}
	var list []string
	if json.Unmarshal(b, &list) == nil { // a value of another kind belongs to a command that does not read it
		*v = anyValue(strings.Join(list, ""))
	}
	return nil
}

// uiaCommand runs with the phone's lock held and returns the answer's value.
type uiaCommand func(*uiaRequest) (any, error)

// maxBody bounds a command.
const maxBody = 8 << 20

// uiautomatorHandler is the HTTP interface of one run of the UiAutomator2 server, as version 7.7.1 has it.
func (p *Phone) uiautomatorHandler(i *instrumentation) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, run uiaCommand, inSession bool) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { p.answer(w, r, i, run, inSession) })
	}
	handle("GET /status", uiaStatus, false)
	handle("GET /sessions", uiaSessions, false)
	handle("POST /session", uiaOpenSession, false)
	for pattern, run := range sessionCommands() {
		handle(pattern, run, true)
	}
	handle("/", func(r *uiaRequest) (any, error) {
		p.log.Debug("unknown UiAutomator2 command", "method", r.http.Method, "path", r.http.URL.Path)
		return nil, &driverError{http.StatusNotFound, "unknown command", "The simulated phone's UiAutomator2 server has no " + r.http.Method + " " + r.http.URL.Path}
	}, false)
	return mux
}

// answer runs one command and writes its answer.
func (p *Phone) answer(w http.ResponseWriter, r *http.Request, i *instrumentation, run uiaCommand, inSession bool) {
	req := &uiaRequest{phone: p, instrumentation: i, http: r}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil && len(body) > 0 {
		err = json.Unmarshal(body, &req.body)
	}
	if inSession {
		p.beforeCommand()
	}
	if slow := p.faults.use(FaultSlow); slow != nil {
		timer := time.NewTimer(time.Duration(slow.DelayMS) * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	var value any
	if err != nil {
		err = invalidArgument("the command's body cannot be read: " + err.Error())
	} else {
		value, err = req.run(run, inSession)
	}
	status := http.StatusOK
	if err != nil {
		status, value = errorAnswer(err)
	}
	p.log.Debug("uiautomator2", "method", r.Method, "path", r.URL.Path, "status", status)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	p.mu.Lock()
	session := cmp.Or(r.PathValue("session"), i.session)
	p.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]any{"sessionId": session, "value": value}) // the client may be gone
}

func (r *uiaRequest) run(run uiaCommand, inSession bool) (any, error) {
	p := r.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	r.now = time.Now()
	if inSession {
		id := r.http.PathValue("session")
		if p.instrumentation != r.instrumentation || r.instrumentation.session != id {
			return nil, &driverError{http.StatusNotFound, "invalid session id", "There is no session " + id}
		}
		p.ledger.countCommand(id)
	}
	return run(r)
}

func errorAnswer(err error) (int, any) {
	var known *driverError
	var selector *selectorError
	switch {
	case errors.As(err, &known):
	case errors.As(err, &selector):
		known = &driverError{http.StatusBadRequest, "invalid selector", selector.message}
	default:
		known = &driverError{http.StatusInternalServerError, "unknown error", err.Error()}
	}
	return known.status, map[string]string{"error": known.code, "message": known.detail, "stacktrace": ""}
}

func uiaStatus(*uiaRequest) (any, error) {
	return map[string]any{
		"ready": true, "message": "UiAutomator2 Server is ready to accept commands",
		"build": map[string]any{"version": "7.7.1", "versionCode": 220},
	}, nil
}

func uiaSessions(r *uiaRequest) (any, error) {
	list := []map[string]any{}
	if id := r.instrumentation.session; id != "" {
		list = append(list, map[string]any{"id": id, "capabilities": map[string]any{}})
	}
	return list, nil
}

// uiaOpenSession opens a session. The server has one at a time: an older one ends.
func uiaOpenSession(r *uiaRequest) (any, error) {
	p, i := r.phone, r.instrumentation
	if p.instrumentation != i {
		return nil, &driverError{http.StatusInternalServerError, "session not created", "the server is ending"}
	}
	if i.session != "" {
		p.ledger.closeSession(i.session, "replaced", r.now)
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	i.session = hex.EncodeToString(id[:])
	p.ledger.openSession(i.session, r.now)
	return map[string]any{"sessionId": i.session, "capabilities": map[string]any{"platformName": "Android"}}, nil
}

func uiaCloseSession(r *uiaRequest) (any, error) {
	r.phone.ledger.closeSession(r.instrumentation.session, "deleted", r.now)
	r.instrumentation.session = ""
	return nil, nil
}
