package phonesim

type xpathExpr struct{}

func parseXPath(s string) (*xpathExpr, error) { return &xpathExpr{}, nil }
func (x *xpathExpr) find(n *node) ([]*node, error) {
	var l []*node
	n.each(func(m *node) bool { l = append(l, m); return true })
	return l, nil
}
