package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// link pushes from another network namespace over a link with a delay, loss and a
// bandwidth, in the direction of the push and back.
func (b *bench) link(ctx context.Context) error {
	// Names with the process's ID, as two runs may be on a machine. A device's has at most 15
	// bytes.
	ns := fmt.Sprintf("quarxfs-%d", os.Getpid())
	here, there := fmt.Sprintf("qx%da", os.Getpid()%10000), fmt.Sprintf("qx%db", os.Getpid()%10000)
	ends := make([]*os.File, 2)
	for i, name := range []string{here, there} {
		f, err := openTUN(name)
		if err != nil {
			return err
		}
		defer f.Close()
		ends[i] = f
	}
	// After an interrupt as well; the devices go with their files.
	defer func() { _, _ = output(context.WithoutCancel(ctx), "ip", "netns", "del", ns) }()
	for _, args := range [][]string{
		{"netns", "add", ns},
		{"link", "set", there, "netns", ns},
		{"addr", "add", "10.213.7.1/30", "dev", here},
		{"link", "set", here, "up"},
		{"-n", ns, "addr", "add", "10.213.7.2/30", "dev", there},
		{"-n", ns, "link", "set", there, "up"},
	} {
		if _, err := output(ctx, "ip", args...); err != nil {
			return err
		}
	}
	// 50 ms each way; the queue is what a router would hold before it drops.
	w := wire{delay: 50 * time.Millisecond, loss: 0.01, rate: float64(b.mbit) * 1e6 / 8, queue: 100 * time.Millisecond}
	go w.forward(ends[0], ends[1])
	go w.forward(ends[1], ends[0])
	src, dst, err := b.pair(ctx, "10.213.7.1:0")
	if err != nil {
		return err
	}
	if _, err := output(ctx, "cp", "-a", b.source, filepath.Join(src.mnt, "src")); err != nil {
		return err
	}
	if _, err := src.snapshot(ctx, "one"); err != nil {
		return err
	}
	begun := time.Now()
	out, err := output(ctx, "ip", "netns", "exec", ns, b.quarxfs, "sync", "push", src.store, "peer", "one", "--json")
	if err != nil {
		return err
	}
	// The command's start counts, which is little beside the push.
	took := time.Since(begun).Seconds()
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return err
	}
	rate := float64(r.Bytes) * 8 / 1e6 / took
	fmt.Printf("100 ms, 1 %% loss, %d Mbit/s: %d bytes of records in %.1f s, %.1f Mbit/s, %.0f %% of the bandwidth; %d retries\n",
		b.mbit, r.Bytes, took, rate, 100*rate/float64(b.mbit), r.Retries)
	return sameTrees(ctx, src, dst, "one")
}
