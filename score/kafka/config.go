package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// PasswordVariable is the environment variable that holds the SASL password where no password-file is named.
const PasswordVariable = "ONMART_KAFKA_PASSWORD"

const scheme = "kafka://"

// Config is where a cluster is and how to talk to it; Parse makes one. It holds no secret: passwords and keys are read
// from their files at each connection, so that one which was renewed is used without a restart.
type Config struct {
	Brokers []string // HOST:PORT
	Topics  []string // those to read, or the one to write to
	Group   string   // where offsets are kept; empty where the URL does not say

	tls                              bool
	tlsGiven                         bool
	caFile, certFile, keyFile        string
	serverName                       string
	sasl, user, passwordFile         string
	clientID                         string
	startTimeout, transactionTimeout time.Duration
	checkEvery                       time.Duration
	fetchBytes, partitionBytes       int
	batchBytes                       int
	compression                      string
}

// Defaults of the parameters. Bytes of a fetch and of the producer's buffer bound the memory, since nothing more is
// asked for before they are taken away.
func defaults() *Config {
	return &Config{
		clientID:           "onmart",
		startTimeout:       time.Minute,
		transactionTimeout: time.Minute,
		checkEvery:         2 * time.Second,
		fetchBytes:         4 << 20,
		partitionBytes:     1 << 20,
		batchBytes:         1 << 20,
		// Of 200-byte lines, 5,000 at a time: 547 ns of CPU a line without, 782 with snappy, 1057 with lz4, 1294 with zstd.
		compression: "none",
	}
}

// parameter is one key of the URL's query.
type parameter struct {
	key, value, help string
	set              func(c *Config, v string) error
}

func parameters() []parameter {
	text := func(field func(*Config) *string) func(*Config, string) error {
		return func(c *Config, v string) error {
			if v == "" {
				return errors.New("is empty")
			}
			*field(c) = v
			return nil
		}
	}
	duration := func(field func(*Config) *time.Duration, least time.Duration) func(*Config, string) error {
		return func(c *Config, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < least {
				return fmt.Errorf("%s: want a duration of at least %s, such as 30s", v, least)
			}
			*field(c) = d
			return nil
		}
	}
	size := func(field func(*Config) *int, least int) func(*Config, string) error {
		return func(c *Config, v string) error {
			n, err := parseBytes(v)
			if err != nil || n < least {
				return fmt.Errorf("%s: want bytes, at least %d, such as 1MiB", v, least)
			}
			*field(c) = n
			return nil
		}
	}
	oneOf := func(field func(*Config) *string, values ...string) func(*Config, string) error {
		return func(c *Config, v string) error {
			if !slices.Contains(values, v) {
				return fmt.Errorf("%s: want one of %s", v, strings.Join(values, ", "))
			}
			*field(c) = v
			return nil
		}
	}
	return []parameter{
		{"group", "NAME", "where offsets are kept", text(func(c *Config) *string { return &c.Group })},
		{"tls", "true|false", "TLS; true where sasl, ca, cert or key is given for a broker elsewhere than on this machine", func(c *Config, v string) error {
			on, err := strconv.ParseBool(v)
			c.tls, c.tlsGiven = on, true
			if err != nil {
				return fmt.Errorf("%s: want true or false", v)
			}
			return nil
		}},
		{"ca", "FILE", "certificates (PEM) that the broker's must be signed by, instead of the system's", text(func(c *Config) *string { return &c.caFile })},
		{"cert", "FILE", "client certificate (PEM), read again at each connection", text(func(c *Config) *string { return &c.certFile })},
		{"key", "FILE", "its key (PEM)", text(func(c *Config) *string { return &c.keyFile })},
		{"server-name", "NAME", "name that the broker's certificate must carry, where it is not the host's", text(func(c *Config) *string { return &c.serverName })},
		{"sasl", "plain|scram-sha-256|scram-sha-512", "how to authenticate", oneOf(func(c *Config) *string { return &c.sasl }, "plain", "scram-sha-256", "scram-sha-512")},
		{"user", "NAME", "SASL user", text(func(c *Config) *string { return &c.user })},
		{"password-file", "FILE", "SASL password, read again at each authentication; without it " + PasswordVariable, text(func(c *Config) *string { return &c.passwordFile })},
		{"client-id", "NAME", "what the broker calls this client in its log and quotas", text(func(c *Config) *string { return &c.clientID })},
		{"start-timeout", "DURATION", "how long a broker that cannot be reached is tried at start", duration(func(c *Config) *time.Duration { return &c.startTimeout }, time.Second)},
		{"check-every", "DURATION", "how often topics are looked at for new partitions, and the broker for life", duration(func(c *Config) *time.Duration { return &c.checkEvery }, 50*time.Millisecond)},
		{"fetch-bytes", "SIZE", "most bytes of one fetch from a broker, as compressed; at most two are in memory", size(func(c *Config) *int { return &c.fetchBytes }, 1<<16)},
		{"partition-bytes", "SIZE", "most bytes of one partition in a fetch", size(func(c *Config) *int { return &c.partitionBytes }, 1<<14)},
		{"transaction-timeout", "DURATION", "after which a broker ends a transaction that was left open", duration(func(c *Config) *time.Duration { return &c.transactionTimeout }, time.Second)},
		{"compression", "none|lz4|snappy|zstd|gzip", "of what is written", oneOf(func(c *Config) *string { return &c.compression }, "none", "lz4", "snappy", "zstd", "gzip")},
		{"batch-bytes", "SIZE", "most bytes of one batch that is written; never above the topic's max.message.bytes", size(func(c *Config) *int { return &c.batchBytes }, 1<<10)},
	}
}

// Client connects with the config's addresses, security and name, for what neither Source nor Sink does.
func (c *Config) Client(more ...kgo.Opt) (*kgo.Client, error) {
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	return kgo.NewClient(append(opts, more...)...)
}

// Parse reads kafka://HOST:PORT[,HOST:PORT]/TOPIC[+TOPIC...][?KEY=VALUE&...]. It returns every fault at once. Nothing
// that could be a password is repeated in an error.
func Parse(rawURL string) (*Config, error) {
	rest, ours := strings.CutPrefix(rawURL, scheme)
	if !ours {
		return nil, errors.New("not a Kafka URL: want kafka://HOST:PORT/TOPIC")
	}
	rest, query, _ := strings.Cut(rest, "?")
	hosts, topics, _ := strings.Cut(rest, "/")
	c := defaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if at := strings.LastIndexByte(hosts, '@'); at >= 0 {
		fault("a user or password does not belong into the URL, where others can read it: use ?user=NAME&password-file=FILE, or %s", PasswordVariable)
		hosts = hosts[at+1:]
	}
	for host := range strings.SplitSeq(hosts, ",") {
		broker, err := brokerAddress(host)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		c.Brokers = append(c.Brokers, broker)
	}
	for topic := range strings.SplitSeq(topics, "+") {
		switch {
		case !validTopic(topic):
			fault("topic %q: want kafka://HOST:PORT/TOPIC[+TOPIC...]; a topic has 1 to 249 letters, digits, dots, dashes and underscores", topic)
		case slices.Contains(c.Topics, topic):
			fault("topic %s is named twice", topic)
		default:
			c.Topics = append(c.Topics, topic)
		}
	}
	faults = append(faults, c.setAll(query)...)
	faults = append(faults, c.checkSecurity()...)
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return c, nil
}

func (c *Config) setAll(query string) []error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return []error{errors.New("the part after ? cannot be read: want KEY=VALUE&KEY=VALUE, with % and & in values written as %25 and %26")}
	}
	var faults []error
	known := map[string]parameter{}
	for _, p := range parameters() {
		known[p.key] = p
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		p, ok := known[key]
		switch {
		case key == "password":
			faults = append(faults, fmt.Errorf("password: a URL is no place for it, others can read it: use password-file=FILE, or %s", PasswordVariable))
		case !ok:
			faults = append(faults, fmt.Errorf("%s: no such parameter; there are %s", key, strings.Join(slices.Sorted(maps.Keys(known)), ", ")))
		case len(values[key]) > 1:
			faults = append(faults, fmt.Errorf("%s is given %d times", key, len(values[key])))
		default:
			if err := p.set(c, values[key][0]); err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", key, err))
			}
		}
	}
	return faults
}

// checkSecurity holds the rules between the parameters of TLS and SASL, and turns TLS on where they ask for it.
func (c *Config) checkSecurity() []error {
	var faults []error
	wants := c.caFile != "" || c.certFile != "" || c.keyFile != "" || c.serverName != ""
	if wants && c.tlsGiven && !c.tls {
		faults = append(faults, errors.New("tls=false, and ca, cert, key or server-name is given: leave out one of the two"))
	}
	if (c.certFile == "") != (c.keyFile == "") {
		faults = append(faults, errors.New("cert and key go together"))
	}
	if c.sasl == "" && (c.user != "" || c.passwordFile != "") {
		faults = append(faults, errors.New("user and password-file need sasl=plain, scram-sha-256 or scram-sha-512"))
	}
	if c.sasl != "" && c.user == "" {
		faults = append(faults, errors.New("sasl needs user=NAME"))
	}
	if !c.tlsGiven {
		c.tls = wants || c.sasl != "" && !loopback(c.Brokers)
	}
	if c.sasl != "" && c.user != "" {
		if _, err := c.password(); err != nil {
			faults = append(faults, err)
		}
	}
	if c.tls {
		if _, err := c.tlsConfig(); err != nil {
			faults = append(faults, err)
		}
	}
	return faults
}

// password is asked for at each authentication, so that a renewed one counts at once.
func (c *Config) password() (string, error) {
	if c.passwordFile != "" {
		b, err := os.ReadFile(c.passwordFile)
		if err != nil {
			return "", fmt.Errorf("password-file: %w", err)
		}
		if p := strings.TrimRight(string(b), "\r\n"); p != "" {
			return p, nil
		}
		return "", fmt.Errorf("password-file %s is empty", c.passwordFile)
	}
	if p := os.Getenv(PasswordVariable); p != "" {
		return p, nil
	}
	return "", fmt.Errorf("sasl needs a password: name password-file=FILE, or set %s", PasswordVariable)
}

func (c *Config) tlsConfig() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.serverName}
	if c.caFile != "" {
		pem, err := os.ReadFile(c.caFile)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: %s holds no certificate in PEM", c.caFile)
		}
	}
	if c.certFile == "" {
		return t, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
		if err != nil {
			return nil, fmt.Errorf("cert and key: %w", err)
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return t, nil
}

// options are what every client of the cluster has in common.
func (c *Config) options() ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.clientID),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(time.Minute),
		kgo.DialTimeout(5 * time.Second),
		// A broker that came back is found again within a second, also after hours.
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(50*time.Millisecond<<min(tries, 5), time.Second)
		}),
		kgo.DisableClientMetrics(),
		kgo.MaxVersions(versions()),
	}
	if c.tls {
		t, err := c.tlsConfig()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	switch c.sasl {
	case "plain":
		opts = append(opts, kgo.SASL(plain.Plain(func(context.Context) (plain.Auth, error) {
			p, err := c.password()
			return plain.Auth{User: c.user, Pass: p}, err
		})))
	case "scram-sha-256", "scram-sha-512":
		auth := func(context.Context) (scram.Auth, error) {
			p, err := c.password()
			return scram.Auth{User: c.user, Pass: p}, err
		}
		if c.sasl == "scram-sha-256" {
			opts = append(opts, kgo.SASL(scram.Sha256(auth)))
		} else {
			opts = append(opts, kgo.SASL(scram.Sha512(auth)))
		}
	}
	return opts, nil
}

// versions are the newest that franz-go knows, except that offsets go under the names of their topics and not under
// ids: what identifies a topic is checked by the watch.
func versions() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(kmsg.OffsetCommit.Int16(), 9)
	v.SetMaxKeyVersion(kmsg.OffsetFetch.Int16(), 9)
	v.SetMaxKeyVersion(kmsg.TxnOffsetCommit.Int16(), 5)
	return v
}

func (c *Config) codec() kgo.CompressionCodec {
	switch c.compression {
	case "lz4":
		return kgo.Lz4Compression()
	case "snappy":
		return kgo.SnappyCompression()
	case "zstd":
		return kgo.ZstdCompression().WithLevel(1)
	case "gzip":
		return kgo.GzipCompression()
	}
	return kgo.NoCompression()
}

// where names the cluster in messages.
func (c *Config) where() string { return scheme + strings.Join(c.Brokers, ",") }

func brokerAddress(host string) (string, error) {
	if host == "" {
		return "", errors.New("a broker is missing: want kafka://HOST:PORT[,HOST:PORT]/TOPIC")
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil { // no port, or an IPv6 address without one
		name, port = strings.Trim(host, "[]"), "9092"
		if _, notIP := netip.ParseAddr(name); notIP != nil && strings.ContainsAny(name, ":[]") {
			return "", fmt.Errorf("broker %s: want HOST:PORT", host)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || name == "" || strings.ContainsAny(name, " /?#") {
		return "", fmt.Errorf("broker %s: want HOST:PORT", host)
	}
	return net.JoinHostPort(name, port), nil
}

func loopback(brokers []string) bool {
	for _, b := range brokers {
		host, _, err := net.SplitHostPort(b)
		if err != nil {
			return false
		}
		addr, err := netip.ParseAddr(host)
		if host != "localhost" && (err != nil || !addr.IsLoopback()) {
			return false
		}
	}
	return true
}

func validTopic(name string) bool {
	return len(name) > 0 && len(name) < 250 && name != "." && name != ".." &&
		!strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(topicLetters, r) })
}

const topicLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

func parseBytes(v string) (int, error) {
	shift := 0
	for _, unit := range []struct {
		name  string
		shift int
	}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}} {
		if number, cut := strings.CutSuffix(v, unit.name); cut {
			v, shift = number, unit.shift
		}
	}
	n, err := strconv.ParseInt(v, 10, 31)
	if err == nil && n > (1<<31-1)>>shift {
		return 0, strconv.ErrRange
	}
	return int(n) << shift, err
}
