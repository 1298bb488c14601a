package monitor

// Monitor is all that a scorer tells about itself.
type Monitor struct {
	*Metrics
	Health *Health
	Alerts *Alerts
}

// New makes one with no checks and no history.
func New(b Build) *Monitor {
	h := &Health{}
	return &Monitor{Metrics: NewMetrics(b, h), Health: h, Alerts: &Alerts{}}
}
