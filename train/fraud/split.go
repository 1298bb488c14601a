package fraud

import (
	"fmt"
	"math"

	"github.com/onmart/onmart/datasets"
)

// Split is the rows that epochs are chosen with: trained on Fit, judged on Valid.
type Split struct {
	Fit, Valid datasets.Range
	// Gap is the time between them, less than the delay where the range is too short for it.
	Gap int64
}

const (
	// validShare of a training range is kept to choose the epochs on, in whole units of time.
	validShare = .2
	// leastFit of it must be left to fit on; the gap gives way first.
	leastFit = .5
)

// split divides a range of training without empty ends: its latest part to judge, before it a gap as long as
// the delay, so that what is judged lies as far ahead as it will in use, and the rest to fit on.
func split(r datasets.Range, delay int64) (Split, error) {
	unit := unitOf(r)
	if unit == 0 {
		return Split{}, fmt.Errorf("--train %s is too short to keep a part of it for choosing epochs; give --valid", r)
	}
	length := (r.To - r.From) / unit
	valid := int64(math.Ceil(validShare * float64(length)))
	fit := int64(math.Ceil(leastFit * float64(length)))
	gap := min(delay, (length-valid-fit)*unit)
	s := Split{Gap: gap}
	s.Valid = datasets.Range{From: r.To - valid*unit, To: r.To}
	s.Fit = datasets.Range{From: r.From, To: s.Valid.From - gap}
	return s, nil
}

// unitOf is the longest unit of time of which a range has four, or 0.
func unitOf(r datasets.Range) int64 {
	for _, u := range []int64{datasets.Day, datasets.Hour, datasets.Minute, datasets.Second} {
		if (r.To-r.From)/u >= 4 {
			return u
		}
	}
	return 0
}
