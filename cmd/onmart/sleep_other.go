//go:build !linux

package main

import "time"

// sleepUntil sleeps as exactly as the runtime does.
func sleepUntil(due time.Time) { time.Sleep(time.Until(due)) }
