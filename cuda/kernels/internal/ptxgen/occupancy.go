package main

// multiprocessor is what one SM of an architecture has, and in what units it gives it to blocks.
type multiprocessor struct {
	threads, blocks int // resident at most
	shared          int // bytes for all blocks
	sharedUnit      int // bytes
	reserved        int // bytes of shared memory that the driver keeps a block
}

const (
	warpThreads = 32
	// Each of the four schedulers of an SM has a quarter of the registers, which it gives to a warp in units of 256.
	schedulers    = 4
	registersOfSM = 65536
	registerUnit  = 256
)

// multiprocessorOf knows the architectures of the check: CUDA C++ Programming Guide, "Compute Capabilities"; the units are
// those of NVIDIA's occupancy calculator.
func multiprocessorOf(arch string) (m multiprocessor, known bool) {
	m, known = map[string]multiprocessor{
		"sm_75":  {1024, 16, 64 << 10, 256, 0},
		"sm_80":  {2048, 32, 164 << 10, 128, 1024},
		"sm_86":  {1536, 16, 100 << 10, 128, 1024},
		"sm_89":  {1536, 24, 100 << 10, 128, 1024},
		"sm_90":  {2048, 32, 228 << 10, 128, 1024},
		"sm_100": {2048, 32, 228 << 10, 128, 1024},
		"sm_120": {1536, 24, 100 << 10, 128, 1024},
	}[arch]
	return m, known
}

// residentBlocks is how many blocks of a kernel an SM holds at once: the least of what its threads, blocks, registers and
// shared memory allow. 0 means that one does not fit.
func (m multiprocessor) residentBlocks(threads, registers, shared int) int {
	warps := roundUp(threads, warpThreads) / warpThreads
	n := min(m.blocks, m.threads/(warps*warpThreads))
	if registers > 0 {
		ofWarp := roundUp(registers*warpThreads, registerUnit)
		n = min(n, registersOfSM/schedulers/ofWarp*schedulers/warps)
	}
	if taken := roundUp(shared+m.reserved, m.sharedUnit); taken > 0 {
		n = min(n, m.shared/taken)
	}
	return n
}

// occupancy is the share of an SM's threads that resident blocks of so many threads fill, in percent, rounded down.
func (m multiprocessor) occupancy(threads, blocks int) int {
	return 100 * blocks * roundUp(threads, warpThreads) / m.threads
}

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }
