package main

import (
	"syscall"
	"time"
)

// sleepUntil is time.Sleep by the kernel's own timer. Go's wakes an idle process from epoll_wait, which counts in
// milliseconds: at 5,000 requests a second most would be sent too late.
func sleepUntil(due time.Time) {
	for {
		d := time.Until(due)
		if d <= 0 {
			return
		}
		ts := syscall.NsecToTimespec(int64(d))
		syscall.Nanosleep(&ts, nil) // interrupted: the loop goes on
	}
}
