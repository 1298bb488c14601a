package cudatest

import "syscall"

// thread is the number of the calling OS thread.
func thread() int { return syscall.Gettid() }
