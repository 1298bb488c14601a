package state

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// databaseLog hands what the database reports on: its progress is for debugging only.
type databaseLog struct {
	log   *slog.Logger
	fatal func(error)
}

var _ pebble.Logger = (*databaseLog)(nil)

func (l *databaseLog) Infof(format string, args ...any) {
	l.log.Debug("state database", "event", fmt.Sprintf(format, args...))
}

func (l *databaseLog) Errorf(format string, args ...any) {
	l.log.Error("state database", "error", firstLine(fmt.Sprintf(format, args...)))
}

// firstLine leaves out what the database puts below its errors for programs.
func firstLine(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	return first
}

// Fatalf is what the database calls when it cannot go on. It does not expect it to return.
func (l *databaseLog) Fatalf(format string, args ...any) {
	l.fatal(fmt.Errorf(format, args...))
	panic(fmt.Sprintf(format, args...))
}

// isOlderDatabase tells whether the database says that a newer version wrote it. It has no error value for that.
func isOlderDatabase(err error) bool {
	return strings.Contains(err.Error(), "written by a newer") || strings.Contains(err.Error(), "format major version")
}
