//go:build unix

package main

import "golang.org/x/sys/unix"

// freeBytes are those of a directory's file system that this user may fill.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
