package program

// Lanes is the number of virtual lanes that a reduction over elements uses on every path, so that a vector
// of 4, 8, 16 or 32 elements and a scalar loop give the same bits.
const Lanes = 16

// LaneSum is the order in which a backend sums float32 elements: element i is added to lane i mod 16, each lane
// in ascending order from 0; then lane l takes lane l+8, l+4, l+2, l+1 in turn.
func LaneSum(x []float32) float32 {
	var lane [Lanes]float32
	for i, v := range x {
		lane[i%Lanes] += v
	}
	for half := Lanes / 2; half > 0; half /= 2 {
		for l := range half {
			lane[l] += lane[l+half]
		}
	}
	return lane[0]
}
