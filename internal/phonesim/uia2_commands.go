package phonesim

import (
	"encoding/base64"
	"fmt"
	"image"
	"net/http"
	"strings"
)

// sessionCommands are the commands of a session, by their HTTP pattern.
func sessionCommands() map[string]uiaCommand {
	const session, element = "/session/{session}", "/session/{session}/element/{element}"
	nothing := func(*uiaRequest) (any, error) { return nil, nil }
	commands := map[string]uiaCommand{
		"DELETE " + session: uiaCloseSession,
		"GET " + session:    func(*uiaRequest) (any, error) { return map[string]any{"lastScrollData": nil}, nil },

		"POST " + session + "/element":       uiaFindElement,
		"POST " + session + "/elements":      uiaFindElements,
		"GET " + session + "/element/active": uiaActiveElement,

		"POST " + element + "/element":         uiaFindElement,
		"POST " + element + "/elements":        uiaFindElements,
		"POST " + element + "/click":           uiaClick,
		"POST " + element + "/value":           uiaSetValue,
		"POST " + element + "/clear":           uiaClear,
		"GET " + element + "/text":             onElement(func(_ *uiaRequest, n *node) (any, error) { return n.text, nil }),
		"GET " + element + "/name":             onElement(func(_ *uiaRequest, n *node) (any, error) { return n.class, nil }),
		"GET " + element + "/attribute/{name}": onElement(uiaAttribute),
		"GET " + element + "/rect":             onElement(func(_ *uiaRequest, n *node) (any, error) { return n.bounds.json(), nil }),
		"GET " + element + "/location":         onElement(func(_ *uiaRequest, n *node) (any, error) { return n.bounds.json(), nil }),
		"GET " + element + "/size":             onElement(func(_ *uiaRequest, n *node) (any, error) { return n.bounds.json(), nil }),
		"GET " + element + "/screenshot":       uiaElementScreenshot,
		"GET " + element + "/displayed":        onElement(func(*uiaRequest, *node) (any, error) { return true, nil }),
		"GET " + element + "/enabled":          onElement(func(_ *uiaRequest, n *node) (any, error) { return n.enabled, nil }),
		"GET " + element + "/selected":         onElement(func(*uiaRequest, *node) (any, error) { return false, nil }),

		"GET " + session + "/appium/element/{element}/first_visible":       onElement(uiaFirstVisible),
		"POST " + session + "/appium/element/{element}/scroll_to/{target}": nothing,

		"GET " + session + "/source":     func(r *uiaRequest) (any, error) { return r.tree().source(), nil },
		"GET " + session + "/screenshot": uiaScreenshot,
		"POST " + session + "/keys":      uiaKeys,
		"POST " + session + "/actions":   uiaActions,
		"POST " + session + "/back":      func(r *uiaRequest) (any, error) { r.phone.pressKeyCode(keyBack, r.now); return nil, nil },

		"GET " + session + "/orientation":             func(r *uiaRequest) (any, error) { return r.phone.orientation, nil },
		"POST " + session + "/orientation":            uiaSetOrientation,
		"GET " + session + "/rotation":                func(*uiaRequest) (any, error) { return map[string]int{"x": 0, "y": 0, "z": 0}, nil },
		"GET " + session + "/window/rect":             uiaWindow,
		"GET " + session + "/window/{window}/size":    uiaWindow,
		"GET " + session + "/alert/text":              noAlert,
		"POST " + session + "/alert/accept":           noAlert,
		"POST " + session + "/alert/dismiss":          noAlert,
		"POST " + session + "/timeouts":               nothing,
		"POST " + session + "/network_connection":     nothing,
		"GET " + session + "/appium/settings":         func(*uiaRequest) (any, error) { return map[string]any{}, nil },
		"POST " + session + "/appium/settings":        nothing,
		"POST " + session + "/appium/schedule_action": nothing,
	}
	gestureCommands(commands, session)
	deviceCommands(commands, session+"/appium/device")
	return commands
}

func deviceCommands(commands map[string]uiaCommand, device string) {
	commands["GET "+device+"/info"] = uiaDeviceInfo
	commands["GET "+device+"/pixel_ratio"] = func(*uiaRequest) (any, error) { return float64(screenDensity) / 160, nil }
	commands["GET "+device+"/system_bars"] = func(*uiaRequest) (any, error) {
		return map[string]any{"statusBar": statusBar, "navigationBar": map[string]any{}}, nil
	}
	commands["GET "+device+"/display_density"] = func(*uiaRequest) (any, error) { return screenDensity, nil }
	commands["GET "+device+"/battery_info"] = func(*uiaRequest) (any, error) { return map[string]any{"level": 1, "status": 5}, nil }
	commands["POST "+device+"/get_clipboard"] = func(r *uiaRequest) (any, error) { return r.phone.clipboard, nil }
	commands["POST "+device+"/set_clipboard"] = func(r *uiaRequest) (any, error) {
		r.phone.clipboard = r.body.Content
		return nil, nil
	}
	commands["POST "+device+"/open_notifications"] = func(*uiaRequest) (any, error) { return nil, nil }
	press := func(r *uiaRequest) (any, error) {
		r.phone.pressKeyCode(r.body.Keycode, r.now)
		return nil, nil
	}
	commands["POST "+device+"/press_keycode"] = press
	commands["POST "+device+"/long_press_keycode"] = press
}

func (r *uiaRequest) tree() *tree {
	t := r.phone.tree(r.now, false)
	if r.phone.ios {
		t.asXCUI()
	}
	return t
}

func (b rect) json() map[string]int {
	return map[string]int{"x": b.left, "y": b.top, "width": b.right - b.left, "height": b.bottom - b.top}
}

// element returns the element that a command's path or context names.
func (r *uiaRequest) element(uid string) (*node, error) {
	if n := r.tree().byUID(uid); n != nil {
		return n, nil
	}
	return nil, &driverError{http.StatusNotFound, "stale element reference", "The element '" + uid + "' does not exist in DOM anymore"}
}

func onElement(run func(*uiaRequest, *node) (any, error)) uiaCommand {
	return func(r *uiaRequest) (any, error) {
		n, err := r.element(r.http.PathValue("element"))
		if err != nil {
			return nil, err
		}
		return run(r, n)
	}
}

func elementJSON(n *node) map[string]string {
	return map[string]string{"ELEMENT": n.uid(), elementKey: n.uid()}
}

func (r *uiaRequest) search() ([]*node, error) {
	from := r.tree().root
	context := r.body.Context
	if context == "" {
		context = r.http.PathValue("element")
	}
	if context != "" {
		n, err := r.element(context)
		if err != nil {
			return nil, err
		}
		from = n
	}
	strategy, selector := r.body.Strategy, r.body.Selector
	if strategy == "" {
		strategy, selector = r.body.Using, string(r.body.Value)
	}
	s := screenSearch{r.phone, r.now, from}
	return s.find(strategy, selector)
}

func uiaFindElement(r *uiaRequest) (any, error) {
	found, err := r.search()
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, noSuchElement()
	}
	return elementJSON(found[0]), nil
}

func uiaFindElements(r *uiaRequest) (any, error) {
	found, err := r.search()
	if err != nil {
		return nil, err
	}
	list := make([]map[string]string, 0, len(found))
	for _, n := range found {
		list = append(list, elementJSON(n))
	}
	return list, nil
}

func uiaActiveElement(r *uiaRequest) (any, error) {
	if n := r.phone.focused(r.now); n != nil {
		return elementJSON(n), nil
	}
	return nil, noSuchElement()
}

func uiaFirstVisible(_ *uiaRequest, n *node) (any, error) {
	if len(n.children) == 0 {
		return nil, noSuchElement()
	}
	return elementJSON(n.children[0]), nil
}

func uiaClick(r *uiaRequest) (any, error) {
	n, err := r.element(r.http.PathValue("element"))
	if err != nil {
		return nil, err
	}
	r.phone.tap(n, r.now)
	return nil, nil
}

// uiaSetValue types into an element, after what it holds unless told to replace that.
func uiaSetValue(r *uiaRequest) (any, error) {
	n, err := r.editable()
	if err != nil {
		return nil, err
	}
	text := string(r.body.Value)
	if r.body.Text != nil {
		text = *r.body.Text
	}
	r.phone.setText(n, text, r.body.Replace, r.now)
	return nil, nil
}

func uiaClear(r *uiaRequest) (any, error) {
	n, err := r.editable()
	if err != nil {
		return nil, err
	}
	r.phone.setText(n, "", true, r.now)
	return nil, nil
}

func (r *uiaRequest) editable() (*node, error) {
	n, err := r.element(r.http.PathValue("element"))
	if err != nil {
		return nil, err
	}
	if n.element == nil || !n.element.Editable || n.element.Disabled {
		return nil, &driverError{http.StatusBadRequest, "invalid element state", "Cannot set the element's text: it is not editable"}
	}
	return n, nil
}

func uiaAttribute(r *uiaRequest, n *node) (any, error) {
	name := r.http.PathValue("name")
	value, ok := n.attribute(name)
	if !ok {
		return nil, invalidArgument(fmt.Sprintf("'%s' attribute is unknown for the element", name))
	}
	return value, nil
}

func uiaScreenshot(r *uiaRequest) (any, error) {
	return base64.StdEncoding.EncodeToString(r.phone.tree(r.now, false).screenshot()), nil
}

func uiaElementScreenshot(r *uiaRequest) (any, error) {
	t := r.phone.tree(r.now, false)
	n := t.byUID(r.http.PathValue("element"))
	if n == nil {
		_, err := r.element(r.http.PathValue("element"))
		return nil, err
	}
	whole := t.draw()
	part := whole.SubImage(image.Rect(n.bounds.left, n.bounds.top, n.bounds.right, n.bounds.bottom))
	return base64.StdEncoding.EncodeToString(encodePNG(part)), nil
}

// uiaKeys types into the element that has the focus.
func uiaKeys(r *uiaRequest) (any, error) {
	text := string(r.body.Value)
	if r.body.Text != nil {
		text = *r.body.Text
	}
	r.phone.typeText(text, r.now)
	return nil, nil
}

func uiaSetOrientation(r *uiaRequest) (any, error) {
	o := strings.ToUpper(r.body.Orientation)
	if o != "PORTRAIT" && o != "LANDSCAPE" {
		return nil, invalidArgument("orientation is PORTRAIT or LANDSCAPE")
	}
	r.phone.orientation = o
	return nil, nil
}

func uiaWindow(*uiaRequest) (any, error) {
	return map[string]int{"x": 0, "y": 0, "width": screenWidth, "height": screenHeight}, nil
}

func noAlert(*uiaRequest) (any, error) {
	return nil, &driverError{http.StatusNotFound, "no such alert", "An attempt was made to operate on a modal dialog when one was not open"}
}

func uiaDeviceInfo(r *uiaRequest) (any, error) {
	p := r.phone
	return map[string]any{
		"androidId": strings.ToLower(p.options.Serial), "manufacturer": p.props["ro.product.manufacturer"], "model": p.props["ro.product.model"],
		"brand": p.props["ro.product.brand"], "apiVersion": p.props["ro.build.version.sdk"], "platformVersion": p.props["ro.build.version.release"],
		"carrierName": "", "realDisplaySize": fmt.Sprintf("%dx%d", screenWidth, screenHeight), "displayDensity": screenDensity,
		"networks": []any{}, "locale": "en_US", "timeZone": "UTC", "bluetooth": map[string]string{"state": "OFF"},
	}, nil
}
