//go:build nocuda || (!linux && !darwin && !cu)

package cuda

// open finds nothing: this build has no CUDA.
func open(string, bool) (Driver, *unavailable) {
	return nil, &unavailable{state: NoLibrary, reason: "this binary was built without CUDA (tag nocuda)",
		remedy: "use the default build on a machine with glibc and NVIDIA's driver"}
}
