// Package clustertest has what tests of nodes need.
package clustertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// FreePorts returns the first of n ports of this machine at which nobody listens. They are none of
// those that the kernel hands out by itself, so nobody gets one by chance before it is used.
func FreePorts(n int) (int, error) {
next:
	for range 100 {
		first := 10000 + n*rand.IntN(20000/n)
		for i := range n {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+i))
			if err != nil {
				continue next
			}
			l.Close()
		}
		return first, nil
	}
	return 0, errors.New("no ports are free")
}
