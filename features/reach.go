package features

// Reach is how much event time an engine that began with an empty state has to have folded before all its windows are
// full, in microseconds; false where some window has no beginning (ever, last n, decay), so that it never is. A label
// that comes after its delay for a transaction from before that is not in any window.
func (p *Plan) Reach() (int64, bool) {
	reach := int64(0)
	for _, g := range p.groups {
		if g.accumulates || g.ewma || g.keep > 0 {
			return 0, false
		}
		reach = max(reach, g.shift+g.span) // of labels the shift is their delay
	}
	return reach, true
}
