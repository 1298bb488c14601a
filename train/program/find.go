package program

import (
	"fmt"
	"strings"
)

// Finder is an Exec that can say where a number ceased to be finite. Not every Exec is one.
type Finder interface {
	// Unsound is where a weight or a piece of optimizer state is not finite now, nil where all are: a whole pass over
	// them.
	Unsound() *Where
	// Find does one step from the weights and the optimizer state as they are, instruction by instruction, and says where
	// the first slot, weight or piece of state that it left not finite has that from: nil where all stayed finite. A
	// number that is not finite and does no harm, such as the Inf of an exp that another instruction divides by, is not
	// reported. The weights are then those after the step, or of no use where there is a Where. It takes memory for
	// the operands of the whole step and gives it back.
	Find(step int) (*Where, error)
}

// Where is the place at which a number that is not finite came up: in the result of an instruction whose operands all
// are finite; or, where Held is not "", in a weight that was not finite before the step; or in a column of the data.
type Where struct {
	Step    int
	Program string // of the set
	Instr   int    // -1 where no instruction was done: Unsound
	Op      Op
	Expr    string // of a Map
	Node    string // of the graph
	Buffer  string // the result, or Held, or Source
	Row     int    // in it
	Column  int
	DataRow int // the row of the bound columns that this row was made of, -1 where it was not made of one
	Value   float64
	// Operands are those of the instruction before it was done, without the columns and weights that are not finite.
	Operands []Spread
	Held     string // the weight, piece of state or constant
	Source   string // the column of the data
}

// Spread is the least and the greatest value of an operand.
type Spread struct {
	Buffer        string
	Least, Utmost float64
}

// String says it in one sentence, without an end.
func (w *Where) String() string {
	var b strings.Builder
	at := fmt.Sprintf("is %v in row %d, column %d", w.Value, w.Row, w.Column)
	switch {
	case w.Source != "":
		return fmt.Sprintf("column %q of the data is %v in row %d, place %d, which step %d reads",
			w.Source, w.Value, w.DataRow, w.Column, w.Step)
	case w.Held != "" && w.Instr < 0:
		return fmt.Sprintf("%q %s", w.Held, at)
	case w.Held != "":
		return fmt.Sprintf("%q %s before step %d, in which instruction %d of %s%s takes it up", w.Held, at, w.Step, w.Instr,
			w.Program, w.what())
	}
	fmt.Fprintf(&b, "in step %d the result %s of instruction %d of %s%s %s",
		w.Step, w.Buffer, w.Instr, w.Program, w.what(), at)
	if w.DataRow >= 0 {
		fmt.Fprintf(&b, " (row %d of the data)", w.DataRow)
	}
	if len(w.Operands) > 0 {
		b.WriteString(", of finite operands:")
	}
	for i, o := range w.Operands {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s from %.6g to %.6g", o.Buffer, o.Least, o.Utmost)
	}
	return b.String()
}

// what is the operation and the node it is of.
func (w *Where) what() string {
	op := string(w.Op)
	if w.Expr != "" {
		op += " " + w.Expr
	}
	if w.Node == "" {
		return fmt.Sprintf(" (%s)", op)
	}
	return fmt.Sprintf(" (%s, node %s)", op, w.Node)
}
