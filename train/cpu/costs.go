package cpu

import (
	"fmt"
	"slices"
	"strings"

	"github.com/onmart/onmart/train/program"
)

// What instructions cost that read or train a few rows of a table, for the profile: rows are counted as often as they
// are named, so that the bytes are those that a step would move without a cache.

// flopsOfRows is the arithmetic of such instructions, 0 for others.
func (m *machine) flopsOfRows(ins ...*program.Instr) (flops int64) {
	for _, in := range ins {
		length := func(id int) int64 { return int64(m.p.Buffers[id].Len()) }
		switch in.Op {
		case program.Lookup:
			flops += length(in.Args[1]) * m.columns(in.Args[0])
		case program.LookupDot, program.LookupWeighted:
			flops += 2 * length(in.Args[1]) * m.columns(in.Args[0])
		case program.CandidateSoftmax, program.CandidateSoftmaxGrad, program.CandidateBPR, program.CandidateBPRGrad:
			flops += 14 * length(in.Args[0])
		case program.RowAdam, program.RowAdagrad, program.RowSGD:
			entries, d := int64(0), m.columns(in.Outs[0])
			for _, u := range in.TableUses() {
				entries += length(u.Idx)
			}
			each := map[program.Op]int64{program.RowAdam: 14, program.RowAdagrad: 8, program.RowSGD: 4}[in.Op]
			flops += 2*entries*d + each*d*m.rowsTouched(in, entries)
		}
	}
	return flops
}

// bytesOfRows is what such instructions read and write.
func (m *machine) bytesOfRows(ins ...*program.Instr) (bytes int64) {
	for _, in := range ins {
		size := func(ids ...int) (n int64) {
			for _, id := range ids {
				n += 4 * int64(m.p.Buffers[id].Len())
			}
			return n
		}
		switch in.Op {
		case program.Lookup, program.LookupDot, program.LookupWeighted:
			bytes += size(in.Args[1])*m.columns(in.Args[0]) + size(in.Args[1:]...) + size(in.Outs...)
		case program.RowAdam, program.RowAdagrad, program.RowSGD:
			entries := int64(0)
			for _, u := range in.TableUses() {
				entries += int64(m.p.Buffers[u.Idx].Len())
				bytes += size(u.Idx) * (1 + m.columns(in.Outs[0]))
				if u.S >= 0 {
					bytes += size(u.S)
				}
			}
			for _, o := range in.Outs {
				bytes += 2 * 4 * m.columns(o) * m.rowsTouched(in, entries)
			}
		default:
			bytes += size(in.Args...) + size(in.Outs...)
		}
	}
	return bytes
}

// rowsTouched is the most rows of a table that so many entries can name.
func (m *machine) rowsTouched(in *program.Instr, entries int64) int64 {
	return min(entries, int64(m.p.Buffers[in.Outs[0]].Shape[0]))
}

// columns is the width of a matrix.
func (m *machine) columns(id int) int64 { return int64(m.p.Buffers[id].Shape[1]) }

// parts are the instructions of a chain in order.
func (s *scoring) parts() []*program.Instr {
	return slices.DeleteFunc([]*program.Instr{s.lookup, s.dot, s.loss, s.grad, s.weighted},
		func(in *program.Instr) bool { return in == nil })
}

// what names the instructions of a chain by their numbers, with the line of the last.
func (s *scoring) what(m *machine, last string) string {
	var numbers []string
	for i := range m.p.Instrs {
		if in := &m.p.Instrs[i]; in != s.last() && slices.Contains(s.parts(), in) {
			numbers = append(numbers, fmt.Sprint(i))
		}
	}
	return fmt.Sprintf("%s, in one pass with %s", last, strings.Join(numbers, ", "))
}
