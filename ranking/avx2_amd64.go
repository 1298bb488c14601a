package ranking

import "golang.org/x/sys/cpu"

// The assembly trusts its arguments: the callers have sliced them to what it reaches.

func hasAVX2() bool { return cpu.X86.HasAVX2 && cpu.X86.HasFMA }

func searchAVX2(panels, query []float32, groups int, threshold float32, out *[groupItems]float32) int {
	dim := len(query)
	return search4(&panels[0], 4*panelItems*dim, &query[0], dim, groups, threshold, &out[0])
}

func batchAVX2(users, panels []float32, n, dim int, s *batchScratch) int {
	return batch6(&users[0], 4*dim, &panels[0], n, dim, &s.thresholds[0][0], &s.scores[0][0], &s.masks[0])
}

func tileAVX2(rows, cols int, a []float32, rs, cs int, b []float32, ldb int, c []float32, ldc, k int) {
	switch {
	case rows == 4 && cols == 16:
		tile4x16(&a[0], 4*rs, 4*cs, &b[0], 4*ldb, &c[0], 4*ldc, k)
	case rows == 1 && cols == 16:
		tile1x16(&a[0], 4*rs, 4*cs, &b[0], 4*ldb, &c[0], 4*ldc, k)
	case rows == 1 && cols == 64:
		tile1x64(&a[0], 4*rs, 4*cs, &b[0], 4*ldb, &c[0], 4*ldc, k)
	default:
		panic("ranking: a tile is 4 x 16, 1 x 16 or 1 x 64")
	}
}

func tile64AVX2(a, b, c []float64, ldc, k int) { tile6x8(&a[0], &b[0], &c[0], 8*ldc, k) }

func gatherAVX2(residual bool, y table, index []int32, weight, v, out []float32) {
	if residual {
		gatherResidual(&y.data[0], 4*y.width, &index[0], &weight[0], len(index), &v[0], &out[0], 4*y.width)
		return
	}
	gatherProduct(&y.data[0], 4*y.width, &index[0], &weight[0], len(index), &v[0], &out[0], 4*y.width)
}

func dotAVX2(a, b []float32) float32 { return dot8(&a[0], &b[0], len(a)) }

func axpyAVX2(y, x []float32, a float32) { axpy8(&y[0], &x[0], a, len(y)) }
