package score

import (
	"math"

	"github.com/onmart/onmart/score/monitor"
)

// watch lets the metrics read the totals and the watermark, which live under the scorer's lock.
func (s *Scorer) watch() {
	s.monitor.CountsFrom(func() monitor.Counts {
		c := s.Counts()
		return monitor.Counts{
			Scored: c.Scored, Alerts: c.Alerts, Late: c.Late, Labels: c.Labels, LabelsWaiting: c.LabelsWaiting,
			LabelsExpired: c.LabelsExpired, Duplicates: c.Duplicates, Skipped: c.Skipped, Followed: c.Followed,
			Rejected: c.Rejected, Ruled: c.Ruled,
		}
	})
	s.monitor.WatermarkFrom(func() (int64, bool) {
		w := s.Watermark()
		return w, w != math.MinInt64
	})
}

// Monitor is what the scorer tells about itself.
func (s *Scorer) Monitor() *monitor.Monitor { return s.monitor }
