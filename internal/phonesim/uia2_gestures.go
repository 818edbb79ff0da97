package phonesim

// actionSequence is one input source of W3C actions.
type actionSequence struct {
	Type    string       `json:"type"`
	Actions []actionItem `json:"actions"`
}

type actionItem struct {
	Type   string  `json:"type"`
	Value  string  `json:"value"`
	X      float64 `json:"x"`
	Y      float64 `json:"y"`
	Origin any     `json:"origin"`
}

func gestureCommands(commands map[string]uiaCommand, session string) {
	nothing := func(*uiaRequest) (any, error) { return nil, nil }
	gesture := func(name string, run uiaCommand) { commands["POST "+session+"/appium/gestures/"+name] = run }
	gesture("click", uiaTapGesture)
	gesture("long_click", uiaTapGesture)
	gesture("double_click", uiaTapGesture)
	gesture("swipe", uiaSwipeGesture)
	gesture("scroll", uiaScrollGesture)
	gesture("fling", uiaScrollGesture)
	gesture("drag", uiaDragGesture)
	gesture("pinch_close", nothing)
	gesture("pinch_open", nothing)
	commands["POST "+session+"/gestures/scroll_to"] = uiaScrollTo
	commands["POST "+session+"/touch/scroll"] = uiaScrollTo
}

// originOf is the element that a gesture is done on, nil when the whole screen is.
func (r *uiaRequest) originOf() (*node, error) {
	for _, key := range []string{elementKey, "ELEMENT"} {
		if uid := r.body.Origin[key]; uid != "" {
			return r.element(uid)
		}
	}
	return nil, nil
}

func uiaTapGesture(r *uiaRequest) (any, error) {
	n, err := r.originOf()
	switch {
	case err != nil:
		return nil, err
	case n == nil && r.body.Offset == nil:
		return nil, invalidArgument("a tap needs an element or a place")
	case n == nil:
		r.phone.tapAt(int(r.body.Offset.X), int(r.body.Offset.Y), r.now)
	case r.body.Offset != nil:
		r.phone.tapAt(n.bounds.left+int(r.body.Offset.X), n.bounds.top+int(r.body.Offset.Y), r.now)
	default:
		r.phone.tap(n, r.now)
	}
	return nil, nil
}

// height is how high the part of the screen is that a gesture moves over.
func (r *uiaRequest) height() (float64, error) {
	n, err := r.originOf()
	switch {
	case err != nil:
		return 0, err
	case n != nil:
		return float64(n.bounds.bottom - n.bounds.top), nil
	case r.body.Area != nil:
		return r.body.Area.Height, nil
	}
	return 0, invalidArgument("a gesture needs an element or an area")
}

// uiaSwipeGesture moves a finger: up shows what is further down.
func uiaSwipeGesture(r *uiaRequest) (any, error) {
	height, err := r.height()
	if err != nil {
		return nil, err
	}
	r.move(r.body.Direction, "up", "down", int(height*r.body.Percent))
	return nil, nil
}

// uiaScrollGesture moves the view: down shows what is further down. It answers whether there is more that way.
func uiaScrollGesture(r *uiaRequest) (any, error) {
	height, err := r.height()
	if err != nil {
		return nil, err
	}
	percent := r.body.Percent
	if percent == 0 {
		percent = 1
	}
	r.move(r.body.Direction, "down", "up", int(height*percent))
	t := r.tree()
	if r.body.Direction == "up" {
		return t.scroll > 0, nil
	}
	return t.scroll < t.maxScroll(), nil
}

func (r *uiaRequest) move(direction, forward, backward string, pixels int) {
	switch direction {
	case forward:
		r.phone.scrollBy(pixels, r.now)
	case backward:
		r.phone.scrollBy(-pixels, r.now)
	}
}

func uiaDragGesture(r *uiaRequest) (any, error) {
	if r.body.Start != nil && r.body.End != nil {
		r.phone.scrollBy(int(r.body.Start.Y-r.body.End.Y), r.now)
	}
	return nil, nil
}

// uiaScrollTo scrolls until an element is on the screen.
func uiaScrollTo(r *uiaRequest) (any, error) {
	params := r.body.Params
	if params == nil {
		return nil, invalidArgument("scrolling needs the element to scroll to")
	}
	quoted := uiValue{kind: 's', text: params.Selector}
	method := map[string]string{"accessibility id": "description", "class name": "className"}[params.Strategy]
	s := screenSearch{r.phone, r.now, r.tree().root}
	if method == "" {
		found, err := s.findUI(params.Selector)
		if err == nil && len(found) == 0 {
			err = noSuchElement()
		}
		return nil, err
	}
	selector, err := compileSelector(&uiExpression{class: "UiSelector", calls: []uiCall{{method, []uiValue{quoted}}}})
	if err != nil {
		return nil, err
	}
	if len(s.scrollTo(selector)) == 0 {
		return nil, noSuchElement()
	}
	return nil, nil
}

// w3cKeys are the code points that WebDriver gives to keys without a character.
var w3cKeys = map[string]int{"\ue003": keyDel, "\ue006": keyEnter, "\ue007": keyEnter}

// uiaActions does W3C actions: keys are typed, a press and release of a pointer at one place is a tap, else a swipe.
func uiaActions(r *uiaRequest) (any, error) {
	for _, sequence := range r.body.Actions {
		switch sequence.Type {
		case "key":
			for _, item := range sequence.Actions {
				if item.Type == "keyDown" {
					r.typeKey(item.Value)
				}
			}
		case "pointer":
			if err := r.pointer(sequence.Actions); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

func (r *uiaRequest) typeKey(value string) {
	if code, ok := w3cKeys[value]; ok {
		r.phone.pressKeyCode(code, r.now)
		return
	}
	r.phone.typeText(value, r.now)
}

func (r *uiaRequest) pointer(items []actionItem) error {
	var x, y, fromX, fromY float64
	for _, item := range items {
		switch item.Type {
		case "pointerMove":
			baseX, baseY, err := r.pointerOrigin(item.Origin, x, y)
			if err != nil {
				return err
			}
			x, y = baseX+item.X, baseY+item.Y
		case "pointerDown":
			fromX, fromY = x, y
		case "pointerUp":
			const slack = 20 // pixels that a finger may slip in a tap
			if dx, dy := x-fromX, y-fromY; dx*dx+dy*dy <= slack*slack {
				r.phone.tapAt(int(x), int(y), r.now)
			} else {
				r.phone.scrollBy(int(fromY-y), r.now)
			}
		}
	}
	return nil
}

func (r *uiaRequest) pointerOrigin(origin any, x, y float64) (baseX, baseY float64, err error) {
	switch o := origin.(type) {
	case string:
		if o == "pointer" {
			return x, y, nil
		}
	case map[string]any:
		for _, key := range []string{elementKey, "ELEMENT"} {
			if uid, ok := o[key].(string); ok {
				n, err := r.element(uid)
				if err != nil {
					return 0, 0, err
				}
				cx, cy := n.bounds.center()
				return float64(cx), float64(cy), nil
			}
		}
	}
	return 0, 0, nil
}
