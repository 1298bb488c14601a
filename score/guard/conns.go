package guard

import (
	"net"
	"sync"
)

// Limit is a listener that keeps at most n connections and closes those that come beyond, at once: one that waited
// would hold a place in the kernel's queue before those that are served.
func Limit(l net.Listener, n int, open func(now int), refused func()) net.Listener {
	return &limited{Listener: l, most: n, open: open, refused: refused}
}

type limited struct {
	net.Listener
	most    int
	open    func(int)
	refused func()

	mu  sync.Mutex
	now int
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !l.take() {
			c.Close()
			l.refused()
			continue
		}
		return &conn{Conn: c, done: sync.OnceFunc(func() { l.add(-1) })}, nil
	}
}

func (l *limited) take() bool {
	l.mu.Lock()
	full := l.now >= l.most
	l.mu.Unlock()
	if full {
		return false
	}
	l.add(1)
	return true
}

func (l *limited) add(n int) {
	l.mu.Lock()
	l.now += n
	now := l.now
	l.open(now)
	l.mu.Unlock()
}

type conn struct {
	net.Conn
	done func()
}

func (c *conn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
