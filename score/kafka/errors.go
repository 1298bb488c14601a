package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ErrFenced says that another process has taken this one's place: it must end, and deliver nothing more.
var ErrFenced = errors.New("another daemon of the same job has taken over")

// ErrTrimmed says that the broker no longer has what was to be read next.
var ErrTrimmed = errors.New("the log no longer has what was to be read next")

// ErrTopicGone says that a topic was deleted, or deleted and made again.
var ErrTopicGone = errors.New("the topic is not the one that was read")

// LineError says which lines of a Deliver the broker does not take. None of its lines were delivered: take those
// out, to a dead-letter topic for example, and deliver the others with the same offsets.
type LineError struct {
	Lines []int // ascending indices into the lines of Deliver
	Err   error
}

func (e *LineError) Error() string {
	return fmt.Sprintf("%d lines that the broker does not take, the first is %d: %v", len(e.Lines), e.Lines[0], e.Err)
}

func (e *LineError) Unwrap() error { return e.Err }

// explain puts what can be done in front of an error of the connection. hard holds for those that an operator has to
// mend, which end a start; while running they are retried, since credentials and rights may be renewed.
func (c *Config) explain(err error) (explained error, hard bool) {
	var (
		unknownCA *x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		hostname  x509.HostnameError
		record    tls.RecordHeaderError
		alert     tls.AlertError
		dns       *net.DNSError
		first     *kgo.ErrFirstReadEOF
	)
	say := func(hard bool, what string) (error, bool) {
		return fmt.Errorf("%s: %s: %w", c.where(), what, err), hard
	}
	unknown := x509.UnknownAuthorityError{}
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return say(true, "the broker refuses user "+c.user+": check user, "+c.passwordSource()+" and the mechanism (sasl="+c.sasl+")")
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return say(true, "the broker does not offer sasl="+c.sasl)
	case errors.As(err, &unknownCA), errors.As(err, &unknown):
		return say(true, "the broker's certificate is signed by an authority that is not known here: name its certificate with ca=FILE")
	case errors.As(err, &hostname):
		return say(true, "the broker's certificate is for another name: use that name, or server-name=NAME")
	case errors.As(err, &invalid):
		return say(true, "the broker's certificate is not valid")
	case errors.As(err, &record):
		return say(true, "the broker does not speak TLS on this port: leave out tls, or use its TLS port")
	case errors.As(err, &alert):
		return say(true, "the broker refuses the TLS handshake: it may want a client certificate (cert=FILE and key=FILE)")
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed),
		errors.Is(err, kerr.TransactionalIDAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return say(true, "user "+c.user+" lacks the right for this: give it READ and DESCRIBE on the source's topics, WRITE and DESCRIBE on the sink's, READ on the group, WRITE and DESCRIBE on the transactional ids")
	case errors.As(err, &dns) && dns.IsNotFound:
		return say(false, "there is no such host")
	case errors.As(err, &first) && c.tls:
		return say(false, "the broker closes the connection: it does not speak TLS on this port, or is just starting")
	case errors.As(err, &first), errors.Is(err, io.EOF), strings.Contains(err.Error(), "tls alert"):
		return say(false, "the broker closes the connection: the port may be one for TLS (tls=true) or for SASL (sasl=...), or the broker is just starting")
	case errors.Is(err, context.DeadlineExceeded):
		return say(false, "no answer in time: is the broker up, and is this its address?")
	}
	return say(false, "no connection: is the broker up, and is this its address?")
}

func (c *Config) passwordSource() string {
	if c.passwordFile != "" {
		return "password-file " + c.passwordFile
	}
	return PasswordVariable
}

// trimmed is what a reader is told whose position lies outside of the log.
func trimmed(p Partition, next, start, end int64) error {
	if next > end && end >= 0 {
		return fmt.Errorf("%s: offset %d was to be read next, and the log ends at %d: the broker lost records, or the topic was made again; "+
			"compare the topic with its backup, then start with a new --state (and --warm-from): %w", p, next, end, ErrTrimmed)
	}
	return fmt.Errorf("%s: offset %d was to be read next, and the log begins at %d: retention or a deletion removed events that were not read; "+
		"lengthen the topic's retention, then start with a new --state (and --warm-from) that has them or does without: %w", p, next, start, ErrTrimmed)
}

// isFence reports the answers that a producer gets whose transactional id another one has taken, or whose transaction
// ran into its timeout.
func isFence(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}

// isDataLoss reports that a partition's log was cut behind what had been read.
func isDataLoss(err error) bool {
	var loss *kgo.ErrDataLoss
	return errors.As(err, &loss) || errors.Is(err, kerr.OffsetOutOfRange)
}
