package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// link pushes from another network namespace over a link with a delay, loss and a
// bandwidth, in the direction of the push and back.
func (b *bench) link() error {
	ns := fmt.Sprintf("quarxfs-%d", os.Getpid())
	here, there := fmt.Sprintf("qx%da", os.Getpid()%10000), fmt.Sprintf("qx%db", os.Getpid()%10000)
	shape := []string{"root", "netem", "delay", "50ms", "loss", "1%", "rate", fmt.Sprintf("%dmbit", b.mbit), "limit", "2000"}
	defer func() { _, _ = output("ip", "netns", "del", ns) }()
	for _, args := range [][]string{
		{"ip", "netns", "add", ns},
		{"ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", ns},
		{"ip", "addr", "add", "10.213.7.1/30", "dev", here},
		{"ip", "link", "set", here, "up"},
		{"ip", "-n", ns, "addr", "add", "10.213.7.2/30", "dev", there},
		{"ip", "-n", ns, "link", "set", there, "up"},
		append([]string{"tc", "qdisc", "add", "dev", here}, shape...),
		append([]string{"tc", "-n", ns, "qdisc", "add", "dev", there}, shape...),
	} {
		if _, err := output(args[0], args[1:]...); err != nil {
			return err
		}
	}
	src, err := b.node("a", "127.0.0.1:0")
	if err != nil {
		return err
	}
	dst, err := b.node("b", "10.213.7.1:0")
	if err != nil {
		return err
	}
	if _, err := output(b.quarxfs, "remote", "add", src.store, "peer", dst.relay.url()); err != nil {
		return err
	}
	if _, err := output("cp", "-a", b.source, filepath.Join(src.mnt, "src")); err != nil {
		return err
	}
	if _, err := src.snapshot("one"); err != nil {
		return err
	}
	begun := time.Now()
	out, err := output("ip", "netns", "exec", ns, b.quarxfs, "sync", "push", src.store, "peer", "one", "--json")
	if err != nil {
		return err
	}
	took := time.Since(begun).Seconds()
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return err
	}
	rate := float64(r.Bytes) * 8 / 1e6 / took
	fmt.Printf("100 ms, 1 %% loss, %d Mbit/s: %d bytes of records in %.1f s, %.1f Mbit/s, %.0f %% of the bandwidth; %d retries\n",
		b.mbit, r.Bytes, took, rate, 100*rate/float64(b.mbit), r.Retries)
	return sameTrees(src, dst, "one")
}
