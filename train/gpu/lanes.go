package gpu

import (
	"errors"

	"github.com/onmart/onmart/cuda"
)

// laneCount is how many streams a step is spread over while it is captured: the graph keeps only the order that they
// and their events give, and the device runs the rest at once. With fewer, works that have nothing to do with each other
// follow each other on a lane; with 24 the longest chain of the default network of three towers is 12 launches, those
// that depend on each other, and not 20 as with 4. Whether a card gains from so many has not been measured.
const laneCount = 24

// seat is where a work runs: its lane, and the works of other lanes that it must wait for.
type seat struct {
	lane   int
	waits  []int
	marked bool // another lane waits for it
}

// seats puts works on lanes.
func seats(works []work, lanes int) []seat {
	out := make([]seat, len(works))
	last := make([]int, lanes)      // work that a lane ended with, -1 before the first
	seen := make([][]int, lanes)    // by lane: up to which work of each lane it has waited
	at := make([][]int, len(works)) // what a work's lane has seen when it runs, itself included
	for l := range last {
		last[l], seen[l] = -1, make([]int, lanes)
		for k := range seen[l] {
			seen[l][k] = -1
		}
	}
	for i := range works {
		deps := dependencies(works, i)
		lane := lane(deps, last, at)
		s := seat{lane: lane}
		for k := len(deps) - 1; k >= 0; k-- { // the latest first: it has mostly seen the others
			d := deps[k]
			if from := out[d].lane; seen[lane][from] < d && from != lane {
				s.waits = append(s.waits, d)
				out[d].marked = true
				for l := range seen[lane] {
					seen[lane][l] = max(seen[lane][l], at[d][l])
				}
			}
		}
		last[lane], seen[lane][lane] = i, i
		at[i] = append([]int(nil), seen[lane]...)
		out[i] = s
	}
	return out
}

// lane chooses where a work goes that depends on deps: behind the latest of them that a lane ends with; else where a lane ends
// with a work that it comes after anyway; else where nothing runs yet; else behind what was put there the longest ago,
// which it then waits for without need.
func lane(deps, last []int, at [][]int) int {
	rank := func(l int) (class, recent int) {
		end := last[l]
		if end < 0 {
			return 1, 0
		}
		for _, d := range deps {
			if d == end {
				return 3, end
			}
		}
		for _, d := range deps {
			if at[d][l] >= end {
				return 2, end
			}
		}
		return 0, -end
	}
	best := 0
	for l := range last {
		class, recent := rank(l)
		if c, r := rank(best); class > c || class == c && recent > r {
			best = l
		}
	}
	return best
}

// dependencies are the works before i that i must come after: they write what it reads or writes, or read what it writes.
func dependencies(works []work, i int) []int {
	var deps []int
	for j := range i {
		if meet(works[j].writes, works[i].reads) || meet(works[j].writes, works[i].writes) || meet(works[j].reads, works[i].writes) {
			deps = append(deps, j)
		}
	}
	return deps
}

func meet(a, b []span) bool {
	for _, x := range a {
		for _, y := range b {
			if x.meets(y) {
				return true
			}
		}
	}
	return false
}

// capture records a plan as one graph. The events are made before: what may be called while a stream is captured is
// little.
func (e *exec) capture(p *plan) (*cuda.Graph, error) {
	seats := seats(p.works, len(e.lanes))
	events := make([]*cuda.Event, len(p.works)) // of works that another lane waits for
	ends := make([]*cuda.Event, len(e.lanes))   // of lanes that are used; that of the first is where the others begin
	for i, s := range seats {
		for _, ev := range []struct {
			at   **cuda.Event
			want bool
		}{{&events[i], s.marked}, {&ends[s.lane], true}, {&ends[0], true}} {
			if *ev.at != nil || !ev.want {
				continue
			}
			var err error
			if *ev.at, err = e.Device.NewEvent(false); err != nil {
				return nil, errors.Join(err, closeEvents(events, ends))
			}
		}
	}
	main := e.lanes[0]
	g, err := main.Capture(func() error {
		if err := ends[0].Record(main); err != nil {
			return err
		}
		for l := 1; l < len(ends); l++ {
			if ends[l] != nil {
				if err := e.lanes[l].Wait(ends[0]); err != nil {
					return err
				}
			}
		}
		for i, w := range p.works {
			s := e.lanes[seats[i].lane]
			for _, d := range seats[i].waits {
				if err := s.Wait(events[d]); err != nil {
					return err
				}
			}
			if err := w.op.Launch(s, e.kernels); err != nil {
				return err
			}
			if events[i] != nil {
				if err := events[i].Record(s); err != nil {
					return err
				}
			}
		}
		for l := 1; l < len(ends); l++ {
			if ends[l] != nil {
				if err := errors.Join(ends[l].Record(e.lanes[l]), main.Wait(ends[l])); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if closing := closeEvents(events, ends); err == nil && closing != nil {
		return nil, errors.Join(closing, g.Close())
	}
	return g, err
}

// closeEvents closes what the graph no longer needs: it holds the order, not the events that gave it.
func closeEvents(lists ...[]*cuda.Event) error {
	var errs []error
	for _, list := range lists {
		for _, ev := range list {
			if ev != nil {
				errs = append(errs, ev.Close())
			}
		}
	}
	return errors.Join(errs...)
}
