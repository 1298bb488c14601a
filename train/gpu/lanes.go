package gpu

import (
	"errors"

	"github.com/onmart/onmart/cuda"
)

// laneCount is how many streams a step is spread over while it is captured: the graph keeps only the order that they
// and their events give, and the device runs the rest at once. Four are as many as a network of towers or a
// backward pass (gradient of the input, of the weights, of the bias) has at a time.
const laneCount = 4

// seat is where a work runs: its lane, and the works of other lanes that it must wait for.
type seat struct {
	lane   int
	waits  []int
	marked bool // another lane waits for it
}

// seats puts works on lanes. A work follows the latest of those that it depends on where it is the first to do so;
// else it takes the lane that was left the longest ago.
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
		lane := 0
		for l := range last {
			if last[l] < last[lane] {
				lane = l
			}
		}
		for k := len(deps) - 1; k >= 0; k-- {
			if d := deps[k]; last[out[d].lane] == d {
				lane = out[d].lane
				break
			}
		}
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
			if *ev.at, err = e.event(); err != nil {
				return nil, err
			}
		}
	}
	main := e.lanes[0]
	return main.Capture(func() error {
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
}
