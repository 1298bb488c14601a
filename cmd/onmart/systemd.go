package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"
)

// notifySystemd sends one message of sd_notify(3), such as READY=1. Without systemd it does nothing.
func notifySystemd(message string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if path[0] == '@' { // the abstract namespace of Linux
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(message))
	return err
}

// watchdogEvery is a third of the time after which systemd restarts a service that does not report, so that one lost
// message does no harm; 0 where it does not watch this process.
func watchdogEvery() time.Duration {
	micros, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || micros <= 0 {
		return 0
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(micros) * time.Microsecond / 3
}

// watchdog reports while alive returns: one that hangs is restarted.
func watchdog(ctx context.Context, every time.Duration, alive func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
			alive()
			notifySystemd("WATCHDOG=1")
		}
	}
}
