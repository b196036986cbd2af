// Package clustertest has what tests of nodes need.
package clustertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// reserved are sockets without a file, one named after each port that FreePorts has given out.
// While this process has them nobody can make them again.
var reserved struct {
	sync.Mutex
	sockets []net.Listener // here, or the collector would close them
}

// FreePorts returns the first of n ports of this machine at which nobody listens. They are none of
// those that the kernel hands out by itself, nor of those that FreePorts has given to anybody else
// who still runs: nobody gets one by chance before it is used.
func FreePorts(n int) (int, error) {
	for range 100 {
		first := 10000 + n*rand.IntN(20000/n)
		if reserve(first, n) {
			return first, nil
		}
	}
	return 0, errors.New("no ports are free")
}

func reserve(first, n int) bool {
	reserved.Lock()
	defer reserved.Unlock()
	for port := first; port < first+n; port++ {
		s, err := net.Listen("unix", fmt.Sprintf("@quarxfs-test-port-%d", port))
		if err != nil {
			return false
		}
		reserved.sockets = append(reserved.sockets, s)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}
