// Package broker starts a real Kafka broker for a test: one node, broker and controller in one, on free ports of the
// loopback, its data in the test's folder.
//
// What enters: a folder with Kafka's jars, named by ONMART_TEST_KAFKA (.ci/run makes it from Maven Central), and Java on
// the path. Where one is missing the test is skipped with a message that says so. What leaves: addresses, and the means
// to stop, kill and start the broker again on the same data. Every process ends with its test.
package broker

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Variable names the environment variable that holds the folder of jars.
const Variable = "ONMART_TEST_KAFKA"

// User and Password are those of the secure listener.
const (
	User     = "onmart"
	Password = "secret-of-the-test"
)

// Options of a broker.
type Options struct {
	Secure     bool     // a second listener with TLS and SASL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512)
	Properties []string // more lines of its configuration
}

// Broker is a running broker.
type Broker struct {
	Addr   string // HOST:PORT without security
	Secure string // HOST:PORT with TLS and SASL
	CA     string // file with the certificate that signed the broker's
	Cert   string // file with a client certificate that it signed, and Key its key
	Key    string

	t    testing.TB
	dir  string
	libs string
	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts a broker, and stops it when the test ends.
func Start(t testing.TB, o Options) *Broker {
	t.Helper()
	libs := os.Getenv(Variable)
	if libs == "" {
		t.Skipf("needs a real broker: set %s to a folder of Kafka's jars (mvn -f .ci/kafka.xml dependency:copy-dependencies -DoutputDirectory=DIR)", Variable)
	}
	if _, err := exec.LookPath("java"); err != nil {
		t.Skip("needs Java for a real broker: ", err)
	}
	b := &Broker{t: t, dir: t.TempDir(), libs: libs}
	b.configure(o)
	b.format(o)
	t.Cleanup(b.Kill)
	b.Start()
	return b
}

func (b *Broker) configure(o Options) {
	b.t.Helper()
	ports := freePorts(b.t, 3)
	b.Addr = fmt.Sprintf("127.0.0.1:%d", ports[0])
	controller := fmt.Sprintf("127.0.0.1:%d", ports[1])
	listeners, protocols := "PLAINTEXT://"+b.Addr, "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
	lines := []string{
		"process.roles=broker,controller", "node.id=1",
		"controller.quorum.voters=1@" + controller, "controller.listener.names=CONTROLLER",
		"inter.broker.listener.name=PLAINTEXT", "log.dirs=" + filepath.Join(b.dir, "data"),
		"auto.create.topics.enable=false", "num.partitions=1",
		// One broker: every internal topic must be content with one replica.
		"offsets.topic.replication.factor=1", "offsets.topic.num.partitions=4",
		"transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1", "transaction.state.log.num.partitions=4",
		"share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1",
		"group.initial.rebalance.delay.ms=0",
	}
	if o.Secure {
		b.Secure = fmt.Sprintf("127.0.0.1:%d", ports[2])
		listeners += ",SASL_SSL://" + b.Secure
		protocols += ",SASL_SSL:SASL_SSL"
		store := b.certificates()
		module := "org.apache.kafka.common.security."
		lines = append(lines,
			"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
			"ssl.keystore.type=PEM", "ssl.keystore.location="+store, "ssl.truststore.type=PEM", "ssl.truststore.location="+b.CA,
			"listener.name.sasl_ssl.ssl.client.auth=requested",
			fmt.Sprintf("listener.name.sasl_ssl.plain.sasl.jaas.config=%splain.PlainLoginModule required user_%s=%q;", module, User, Password),
			"listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config="+module+"scram.ScramLoginModule required;",
			"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config="+module+"scram.ScramLoginModule required;")
	}
	lines = append(lines, "listeners="+listeners+",CONTROLLER://"+controller, "advertised.listeners="+listeners,
		"listener.security.protocol.map="+protocols)
	lines = append(lines, o.Properties...)
	b.write("server.properties", strings.Join(lines, "\n")+"\n")
	b.write("log4j2.properties", strings.Join([]string{"status = error",
		"appender.f.type = File", "appender.f.name = f", "appender.f.fileName = " + filepath.Join(b.dir, "server.log"),
		"appender.f.layout.type = PatternLayout", "appender.f.layout.pattern = [%d] %p %m (%c)%n",
		"rootLogger.level = info", "rootLogger.appenderRef.f.ref = f"}, "\n")+"\n")
}

func (b *Broker) format(o Options) {
	b.t.Helper()
	var id [16]byte
	rand.Read(id[:])
	id[0] &= 0x7f // else one text in 64 begins with a dash, and is taken for an option
	args := []string{"kafka.tools.StorageTool", "format", "-t", base64.RawURLEncoding.EncodeToString(id[:]), "-c", filepath.Join(b.dir, "server.properties")}
	if o.Secure {
		for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
			args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, User, Password))
		}
	}
	if out, err := b.java(args...).CombinedOutput(); err != nil {
		b.t.Fatalf("formatting the broker's storage: %v\n%s", err, out)
	}
}

func (b *Broker) java(args ...string) *exec.Cmd {
	return exec.Command("java", append([]string{"-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dlog4j2.configurationFile=" + filepath.Join(b.dir, "log4j2.properties"), "-cp", filepath.Join(b.libs, "*")}, args...)...)
}

// Start starts the broker again on its data, and waits until it serves.
func (b *Broker) Start() {
	b.t.Helper()
	log := filepath.Join(b.dir, "server.log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		b.t.Fatal(err)
	}
	var console bytes.Buffer
	b.cmd = b.java("kafka.Kafka", filepath.Join(b.dir, "server.properties"))
	b.cmd.Stdout, b.cmd.Stderr = &console, &console
	// A process that outlives the test binary would keep its ports and memory.
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	done := make(chan struct{})
	b.done = done
	go func() { b.cmd.Wait(); close(done) }()
	for range 1200 {
		text, _ := os.ReadFile(log)
		if bytes.Contains(text, []byte("Kafka Server started")) {
			return
		}
		select {
		case <-done:
			b.t.Fatalf("the broker ended:\n%s\n%s", console.Bytes(), text[max(0, len(text)-4000):])
		case <-time.After(50 * time.Millisecond):
		}
	}
	b.t.Fatal("the broker is not ready after a minute")
}

// Stop ends the broker in order. Kill ends it as a loss of power does.
func (b *Broker) Stop() { b.signal(syscall.SIGTERM) }

// Kill is kill -9.
func (b *Broker) Kill() { b.signal(syscall.SIGKILL) }

// Pause stops the broker's process, until Resume: its connections stay open and nothing is answered.
func (b *Broker) Pause() { b.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets it go on.
func (b *Broker) Resume() { b.cmd.Process.Signal(syscall.SIGCONT) }

func (b *Broker) signal(s syscall.Signal) {
	if b.done == nil {
		return
	}
	b.cmd.Process.Signal(s)
	select {
	case <-b.done:
	case <-time.After(30 * time.Second):
		b.cmd.Process.Kill()
		<-b.done
	}
	b.done = nil
}

func (b *Broker) write(name, text string) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// certificates makes an authority, and signs one certificate for the broker and one for a client. It returns the
// broker's key store.
func (b *Broker) certificates() string {
	authorityKey, authority := b.sign("onmart test authority", nil, nil)
	b.CA = b.write("ca.pem", block("CERTIFICATE", authority.Raw))
	serverKey, server := b.sign("127.0.0.1", authority, authorityKey)
	clientKey, client := b.sign(User, authority, authorityKey)
	b.Cert = b.write("client.pem", block("CERTIFICATE", client.Raw))
	b.Key = b.write("client.key", b.keyBlock(clientKey))
	return b.write("server.pem", b.keyBlock(serverKey)+block("CERTIFICATE", server.Raw)+block("CERTIFICATE", authority.Raw))
}

func (b *Broker) sign(name string, by *x509.Certificate, byKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		b.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if by == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		by, byKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
	if err != nil {
		b.t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		b.t.Fatal(err)
	}
	return key, made
}

func (b *Broker) keyBlock(key *ecdsa.PrivateKey) string {
	b.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// freePorts are n ports of the loopback that nobody listened on a moment ago.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}
