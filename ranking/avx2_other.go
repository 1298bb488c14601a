//go:build !amd64

package ranking

func hasAVX2() bool { return false }

const noAVX2 = "ranking: AVX2 is for amd64"

func searchAVX2([]float32, []float32, int, float32, *[groupItems]float32) int { panic(noAVX2) }

func batchAVX2([]float32, []float32, int, int, *batchScratch) int { panic(noAVX2) }

func tileAVX2(int, int, []float32, int, int, []float32, int, []float32, int, int) { panic(noAVX2) }

func tile64AVX2([]float64, []float64, []float64, int, int) { panic(noAVX2) }

func gatherAVX2(bool, table, []int32, []float32, []float32, []float32) { panic(noAVX2) }

func dotAVX2([]float32, []float32) float32 { panic(noAVX2) }

func axpyAVX2([]float32, []float32, float32) { panic(noAVX2) }
