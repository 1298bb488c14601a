package program

import "fmt"

// TableUse is one reading of a table in a step, as its optimizer is given it: buffers of Instr.Args.
type TableUse struct {
	Kind   byte // useLookup or useScaled
	Idx    int
	S      int // of a useScaled, else -1
	Source int // dy or a
}

// Letters of Attr.Uses.
const (
	useLookup = 'l'
	useScaled = 's'
)

// TableUses are the uses of a table's optimizer. It may be asked only of an instruction without a fault.
func (in *Instr) TableUses() []TableUse {
	uses, _ := in.tableUses()
	return uses
}

// tableUses stops at the first fault.
func (in *Instr) tableUses() ([]TableUse, error) {
	letters, args := in.Attr.Uses, in.usesArgs()
	if letters == "" {
		if len(args)%2 != 0 {
			return nil, fmt.Errorf("%d arguments, want pairs of an index and a gradient", len(args))
		}
		var uses []TableUse
		for k := 0; k < len(args); k += 2 {
			uses = append(uses, TableUse{useLookup, args[k], -1, args[k+1]})
		}
		return uses, nil
	}
	var uses []TableUse
	want := 0
	for i := range len(letters) {
		n := 2
		if letters[i] == useScaled {
			n = 3
		} else if letters[i] != useLookup {
			return uses, fmt.Errorf("uses %q: letter %d is neither %c nor %c", letters, i, useLookup, useScaled)
		}
		if want += n; len(args) < want {
			continue
		}
		u := TableUse{letters[i], args[want-n], -1, args[want-1]}
		if n == 3 {
			u.S = args[want-2]
		}
		uses = append(uses, u)
	}
	if want != len(args) {
		return uses, fmt.Errorf("%d arguments, uses %q take %d", len(args), letters, want)
	}
	return uses, nil
}

// usesArgs are the operands that are uses: without the table of RowSumSquares before them, and the factor behind them.
func (in *Instr) usesArgs() []int {
	if in.Op == RowSumSquares {
		return in.Args[1:]
	}
	if in.Factor() >= 0 {
		return in.Args[:len(in.Args)-1]
	}
	return in.Args
}

// Factor is the argument of an update that its gradient is multiplied by, or -1.
func (in *Instr) Factor() int {
	there := false
	switch in.Op {
	case AdamW, SGD, Momentum, Adam, Adagrad:
		there = len(in.Args) == 2
	case RowAdam, RowAdagrad, RowSGD:
		want := 0
		for _, letter := range in.Attr.Uses {
			want += 2
			if letter == useScaled {
				want++
			}
		}
		there = len(in.Args) == want+1
		if want == 0 {
			there = len(in.Args)%2 == 1
		}
	}
	if !there {
		return -1
	}
	return in.Args[len(in.Args)-1]
}

// logQ is the argument of a CandidateSoftmax or its gradient that is logq, or -1.
func (in *Instr) logQ() int {
	switch {
	case in.Op == CandidateSoftmax && len(in.Args) == 4:
		return 3
	case in.Op == CandidateSoftmaxGrad && len(in.Args) == 5:
		return 4
	}
	return -1
}
