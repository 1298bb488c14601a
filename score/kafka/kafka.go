// Package kafka moves events and scores between Kafka topics and the scorer, through franz-go.
//
// What enters: a connection URL, offsets to begin from, lines to deliver. What leaves: raw records of every partition
// of some topics, in ascending offsets within a partition; and lines in a topic, with the offsets they came from,
// in one transaction or at least once. One process reads all partitions of its topics (there is no membership in a
// consumer group); the group is only the name under which its offsets are kept, so that the usual tools show its lag.
//
// What may not be assumed: offsets without gaps (transaction markers and compaction leave some); an order between
// partitions; that a log still begins where it did. A source never goes on from another offset than the one it
// was to read next: where that one is gone it returns an error that says what to do.
//
// Faults that pass (a broker that is down, a password that expired) are retried inside, for as long as the caller's
// context lives, and told through Note. The others are returned.
package kafka

import (
	"fmt"
	"strconv"
	"strings"
)

// Partition is one partition of a topic.
type Partition struct {
	Topic  string
	Number int32
}

// Name is how states, journals and score ids call the partition: kafka:TOPIC/NUMBER.
func (p Partition) Name() string { return namePrefix + p.Topic + "/" + strconv.Itoa(int(p.Number)) }

func (p Partition) String() string { return fmt.Sprintf("topic %s, partition %d", p.Topic, p.Number) }

const namePrefix = "kafka:"

// ParsePartition reads what Name wrote.
func ParsePartition(name string) (Partition, bool) {
	rest, ours := strings.CutPrefix(name, namePrefix)
	slash := strings.LastIndexByte(rest, '/')
	if !ours || slash < 1 {
		return Partition{}, false
	}
	n, err := strconv.ParseInt(rest[slash+1:], 10, 32)
	return Partition{rest[:slash], int32(n)}, err == nil && n >= 0
}

// Note is something for the daemon's log, and where it has a State for its readiness.
type Note struct {
	State State
	Text  string
}

// State is what a Note says of a connection. Between Down and Up nothing goes through it.
type State int

// A note without a state changes nothing about readiness.
const (
	Told State = iota
	Down
	Up
)
