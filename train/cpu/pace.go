package cpu

import "time"

// pace finds out on how many threads the steps of a training are quickest. No bit depends on it, and nobody can say it
// beforehand: what threads leave for each other takes 60 ns or 400 to the other core, as the host of a virtual machine
// moves it, and another program may run there. Two threads train 15-500-1 in batches of 1,024 at 1.8 times the speed of
// one while the cores are near, and at 0.7 times while they are far apart.
//
// Steps are run in pieces of a few milliseconds. Now and then a piece is run on half or twice as many threads; where
// that is quicker two times in a row, it stays so. A trial that lost costs one slow piece, and doubles the time to
// the next one.
type pace struct {
	counts []int // of threads, ascending
	at     int   // the place in counts of the number in use
	trial  int   // the place of the other number of a trial; -1 between two trials
	trying bool  // the present piece is on that

	piece   time.Duration // wanted
	steps   int           // of the present piece
	perStep float64       // seconds a step, as last seen on counts[at]
	wins    int
	up      bool // the next trial is on more threads
	until   int  // pieces to the next trial
	pause   int  // pieces between two trials
}

const (
	// pieceTime is long beside the start of a job with a sleeping thread, some 50 us, and short beside a second.
	pieceTime = 4 * time.Millisecond
	// firstPause and mostPause are pieces between two trials: at most one slow piece in a second.
	firstPause = 2
	mostPause  = 256
	// quicker is how much less a step must take for a trial to win: less may be chance.
	quicker = 0.97
	// farFrom is how much more a step takes in a trial that lost by far.
	farFrom = 1.2
	// winsToStay is the trials in a row that must win.
	winsToStay = 2
)

// newPace tries up to most threads and begins with start.
func newPace(most, start int) *pace {
	p := &pace{trial: -1, piece: pieceTime, up: true, until: firstPause, pause: firstPause}
	for n := 1; n < most; n *= 2 {
		p.counts = append(p.counts, n)
	}
	p.counts = append(p.counts, most)
	for p.at < len(p.counts)-1 && p.counts[p.at+1] <= start {
		p.at++
	}
	return p
}

// steady stays on so many threads.
func steady(threads int) *pace { return &pace{counts: []int{threads}, trial: -1, piece: pieceTime} }

// next is the threads of the next piece and its steps, of those that are left.
func (p *pace) next(left int) (threads, steps int) {
	p.steps = 1
	if p.perStep > 0 {
		p.steps = max(1, int(p.piece.Seconds()/p.perStep))
	}
	if p.steps = min(p.steps, left); p.trying {
		return p.counts[p.trial], p.steps
	}
	return p.counts[p.at], p.steps
}

// took is told what the piece took.
func (p *pace) took(d time.Duration) {
	step := d.Seconds() / float64(p.steps)
	switch {
	case !p.trying:
		p.perStep = step
		if p.until--; p.until <= 0 && len(p.counts) > 1 {
			p.begin()
		}
	case step >= quicker*p.perStep:
		p.trying, p.trial = false, -1
		p.pause *= 2
		if step > farFrom*p.perStep {
			p.pause *= 4
		}
		p.pause = min(p.pause, mostPause)
		p.until = p.pause
	default:
		p.trying = false
		if p.wins++; p.wins < winsToStay {
			p.until = 1 // a piece as before, then once more
			return
		}
		p.at, p.trial, p.perStep = p.trial, -1, step
		p.pause, p.until = firstPause, firstPause
	}
}

// begin begins a trial, or its second half.
func (p *pace) begin() {
	p.trying = true
	if p.trial >= 0 {
		return
	}
	p.wins = 0
	if p.up && p.at == len(p.counts)-1 || !p.up && p.at == 0 {
		p.up = !p.up
	}
	if p.trial = p.at - 1; p.up {
		p.trial = p.at + 1
	}
	p.up = !p.up
}
