package cuda

import "errors"

// Graph is captured work that one call launches.
type Graph struct {
	device *Device
	exec   GraphExec // 0 once closed
}

// Capture runs f and takes what f puts on s, and on streams that wait for events of s, as a graph instead of
// doing it. Such streams must be joined again: s waits for their last event. Kernels' arguments and addresses
// are fixed in the graph; memory, and Hosts, must live as long as it does. In f nothing may be allocated,
// freed or synchronised. f's error is returned, and then there is no graph.
func (s *Stream) Capture(f func() error) (*Graph, error) {
	d := s.device
	if err := s.usable("cuStreamBeginCapture"); err != nil {
		return nil, err
	}
	if code := d.driver.CaptureBegin(s.id); code != Success {
		return nil, d.unsupported("CaptureBegin", "cuStreamBeginCapture", code)
	}
	s.capturing = true
	done := false
	defer func() {
		if done {
			return
		}
		if id, _ := s.endCapture(); id != 0 { // f panicked: leave the stream usable
			d.driver.GraphDestroy(id)
		}
	}()
	failed := f()
	done = true
	id, err := s.endCapture()
	if failed != nil || err != nil {
		if failed != nil { // which is why the capture is spoilt, if it is
			err = failed
		}
		if id != 0 {
			d.driver.GraphDestroy(id)
		}
		return nil, err
	}
	exec, code := d.driver.GraphInstantiate(id)
	if code != Success {
		err = d.unsupported("GraphInstantiate", "cuGraphInstantiate", code)
	}
	if code := d.driver.GraphDestroy(id); code != Success {
		err = errors.Join(err, d.fail("cuGraphDestroy", code, ""))
	}
	if err != nil {
		if exec != 0 {
			d.driver.GraphExecDestroy(exec)
		}
		return nil, err
	}
	d.count("graph", 1)
	return &Graph{device: d, exec: exec}, nil
}

func (s *Stream) endCapture() (GraphID, error) {
	s.capturing = false
	id, code := s.device.driver.CaptureEnd(s.id)
	if code != Success {
		return id, s.device.unsupported("CaptureEnd", "cuStreamEndCapture", code)
	}
	return id, nil
}

// Launch puts the graph's work on a stream. A graph that is launched again runs after itself.
func (g *Graph) Launch(s *Stream) error {
	if err := s.usable("cuGraphLaunch"); err != nil {
		return err
	}
	if code := g.device.driver.GraphLaunch(g.exec, s.id); code != Success {
		return g.device.unsupported("GraphLaunch", "cuGraphLaunch", code)
	}
	return nil
}

// Close ends the graph; what it launched is finished first. Closing twice does nothing.
func (g *Graph) Close() error {
	if g.exec == 0 {
		return nil
	}
	exec := g.exec
	g.exec = 0
	g.device.count("graph", -1)
	if code := g.device.driver.GraphExecDestroy(exec); code != Success {
		return g.device.fail("cuGraphExecDestroy", code, "")
	}
	return nil
}
