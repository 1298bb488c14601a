//go:build !amd64

package cpu

func hasAVX2() bool { return false }

func hasAVX512() bool { return false }

func avx512Kernels() *kernels { panic("cpu: AVX-512 is for amd64") }

func avx2Kernels() *kernels { panic("cpu: AVX2 is for amd64") }

func pause(int) {}
