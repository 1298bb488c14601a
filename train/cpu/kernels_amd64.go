package cpu

func hasAVX2() bool         { return false }
func avx2Kernels() *kernels { return nil }
