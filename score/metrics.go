package score

import (
	"math"

	"github.com/onmart/onmart/score/monitor"
)

// watch lets the metrics read the totals, the state's size and the watermark, which live under the scorer's lock.
func (s *Scorer) watch() {
	s.monitor.CountsFrom(s.Counts)
	s.monitor.StateFrom(func() (int64, map[string]int64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		keys, bytes := s.engine.Size()
		return keys, map[string]int64{"memory": bytes}
	})
	s.monitor.WatermarkFrom(func() (int64, bool) {
		w := s.Watermark()
		return w, w != math.MinInt64
	})
}

// Monitor is what the scorer tells about itself.
func (s *Scorer) Monitor() *monitor.Monitor { return s.monitor }
