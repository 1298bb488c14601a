package kernels

import "github.com/onmart/onmart/cuda"

// CheckObserved is Check that shows the bytes of every output.
func CheckObserved(d *cuda.Device, k *Set, o CheckOptions, observe func(name string, output []byte)) ([]CheckResult, error) {
	return check(d, k, o, observe)
}

// Ways are the ways to compute a product that fit a shape, for tests that want each.
func (o *MatMul) Ways() (kernels []string, launches []func(*cuda.Stream, *Set) error) {
	ways := []int{wayVector}
	if o.M > 1 && o.N > 1 {
		ways = nil
		for w := range tiles {
			if !o.TransA || !o.TransB || w == tileTT {
				ways = append(ways, w)
			}
		}
	}
	for _, w := range ways {
		l := o.plan(w)
		kernels = append(kernels, l.kernel)
		launches = append(launches, func(s *cuda.Stream, k *Set) error { return k.put(s, o, l) })
	}
	return kernels, launches
}
