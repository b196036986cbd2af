package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A wire joins two TUN devices as netem would: packets take a while, some get lost,
// and no more pass than the bandwidth allows. It needs no kernel module but tun.
type wire struct {
	delay time.Duration // each way
	loss  float64
	rate  float64 // bytes a second
	queue time.Duration
}

// openTUN makes a TUN device.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("tun %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

type packet struct {
	due  time.Time
	data []byte
}

// forward passes packets on in one direction until a device is closed. Those that
// the queue before the bandwidth has no room for are lost too.
func (w wire) forward(to, from *os.File) {
	line := make(chan packet, 1<<16)
	defer close(line)
	go func() {
		for p := range line {
			time.Sleep(time.Until(p.due))
			_, _ = to.Write(p.data) // as lost as any
		}
	}()
	var free time.Time // when the bandwidth is free again
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		now := time.Now()
		if free.Before(now) {
			free = now
		}
		if rand.Float64() < w.loss || free.Sub(now) > w.queue {
			continue
		}
		free = free.Add(time.Duration(float64(n) / w.rate * float64(time.Second)))
		line <- packet{free.Add(w.delay), append([]byte(nil), buf[:n]...)}
	}
}
