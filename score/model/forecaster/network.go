package forecaster

import (
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
)

// Input is the name of the network's input in its program.
const Input = "x"

// inputSpread is how many standard deviations an input may be from its mean in training before it is held there: a
// network says nothing sensible of what it never saw.
const inputSpread = 6

// Net runs the network's program. It is not changed by use, and safe for concurrent use.
type Net struct {
	design    *Design
	levels    int
	forward   *cpu.Forward
	low, high []float64 // of each input
}

// NewNet makes a forward program ready that was trained with the inputs of a design. Its input is float64 and
// standardised inside it.
func NewNet(d *Design, levels int, p *program.Program, weights program.Tensors) (*Net, error) {
	f, err := cpu.NewForward(p, weights)
	if err != nil {
		return nil, err
	}
	width := len(d.Names())
	if in := f.Inputs(); len(in) != 1 || in[0].Width != width || f.Width() != levels {
		return nil, fmt.Errorf(
			"the network takes %v and gives %d numbers; this onmart makes %d inputs for %d levels: train again",
			in,
			f.Width(),
			width,
			levels,
		)
	}
	n := &Net{design: d, levels: levels, forward: f}
	mean, scale := weights.Find(program.StandardizeMean), weights.Find(program.StandardizeScale)
	if mean == nil || scale == nil || len(mean.F64) != width || len(scale.F64) != width {
		return nil, fmt.Errorf("the network's standardisation is missing: train again")
	}
	n.low, n.high = Bounds(mean.F64, scale.F64)
	return n, nil
}

// Bounds are what inputs are held to, given what standardises them.
func Bounds(mean, scale []float64) (low, high []float64) {
	low, high = make([]float64, len(mean)), make([]float64, len(mean))
	for i := range mean {
		d := math.Inf(1)
		if scale[i] > 0 {
			d = inputSpread / scale[i]
		}
		low[i], high[i] = mean[i]-d, mean[i]+d
	}
	return low, high
}

// Forecast gives the quantiles of series at an origin, by series, step and level; nil for one that has not begun there.
// Closed steps are 0.
func (n *Net) Forecast(o *Origin, series []int, signed bool, threads int) ([][][]float64, error) {
	out := make([][][]float64, len(series))
	threads = max(1, min(threads, len(series)))
	errs := make([]error, threads)
	var wg sync.WaitGroup
	for t := range threads {
		f := n.forward.Clone()
		wg.Go(func() {
			w := o.Writer()
			buf := netBuffer{row: make([]float32, w.Width())}
			for i := t; i < len(series) && errs[t] == nil; i += threads {
				if o.v.p.Series[series[i]].First < o.known {
					out[i], errs[t] = n.one(f, w, &buf, series[i], signed)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

type netBuffer struct {
	row    []float32
	x, out []float64
}

func (n *Net) one(f *cpu.Forward, w *Writer, buf *netBuffer, series int, signed bool) ([][]float64, error) {
	level, scale := w.Begin(series)
	buf.x = buf.x[:0]
	rows := 0
	for k, s := range w.o.ahead {
		if !s.open {
			continue
		}
		w.Row(k, buf.row)
		for i, v := range buf.row {
			buf.x = append(buf.x, math.Max(n.low[i], math.Min(n.high[i], float64(v))))
		}
		rows++
	}
	buf.out = slices.Grow(buf.out[:0], rows*n.levels)[:rows*n.levels]
	if rows > 0 {
		if err := f.Run(buf.x, rows, buf.out); err != nil {
			return nil, err
		}
	}
	all := make([]float64, len(w.o.ahead)*n.levels)
	out := make([][]float64, len(w.o.ahead))
	row := 0
	for k, s := range w.o.ahead {
		q := all[k*n.levels : (k+1)*n.levels : (k+1)*n.levels]
		if out[k] = q; !s.open {
			continue
		}
		for l, y := range buf.out[row*n.levels : (row+1)*n.levels] {
			q[l] = level + scale*y
			if math.IsNaN(q[l]) || math.IsInf(q[l], 0) {
				return nil, fmt.Errorf(
					"the network gave %v for series %q: train again with a smaller learning rate",
					y,
					w.series.Key,
				)
			}
			if !signed {
				q[l] = math.Max(0, q[l])
			}
		}
		slices.Sort(q)
		row++
	}
	return out, nil
}
