// Command apibench measures the HTTP API of `quarxfs serve` on loopback: objects in and
// out, the latter against net/http's FileServer over the same bytes in a process of its
// own, and many clients at once.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/quarxtor/quarxfs/tools/cli"
)

type bench struct {
	quarxfs, work string
	clients       int
	time          time.Duration
	rounds        int

	token      string
	api, files string // URLs
	pid        int    // of the server
}

func main() { cli.Main(newCommand()) }

func newCommand() *cobra.Command {
	b := &bench{}
	cmd := &cobra.Command{
		Use:   "apibench",
		Short: "Measure the HTTP API of quarxfs serve on loopback",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return b.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&b.quarxfs, "quarxfs", "bin/quarxfs", "the quarxfs `program`")
	f.StringVar(&b.work, "work", "/var/tmp/quarxfs-apibench", "`directory` to work in; it is removed at the end")
	f.IntVar(&b.clients, "clients", 1000, "clients at once")
	f.DurationVar(&b.time, "time", 10*time.Second, "how long they ask")
	f.IntVar(&b.rounds, "rounds", 5, "of each measurement; the median counts")
	cmd.AddCommand(&cobra.Command{
		Use: "fileserver DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return serveFiles(args[0]) },
	})
	return cmd
}

// serveFiles is the reference. It says where it listens and goes on until it is killed.
func serveFiles(dir string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", l.Addr())
	return http.Serve(l, http.FileServer(http.Dir(dir)))
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.quarxfs, err = filepath.Abs(b.quarxfs); err != nil {
		return err
	}
	dir, store := filepath.Join(b.work, "files"), filepath.Join(b.work, "store")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	if out, err := exec.Command(b.quarxfs, "init", store).CombinedOutput(); err != nil {
		return fmt.Errorf("init: %w: %s", err, out)
	}
	token, err := exec.Command(b.quarxfs, "token", "create", store, "bench", "--scope", "read,write").Output()
	if err != nil {
		return fmt.Errorf("token create: %w", err)
	}
	b.token = strings.TrimSpace(string(token))
	// A rate beyond reach, since the server's own limit is not what is measured.
	stop, pid, url, err := start(b.quarxfs, "serve", store, "--listen", "127.0.0.1:0", "--max-rate", "1000000")
	if err != nil {
		return err
	}
	defer stop()
	b.api, b.pid = url, pid
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// In a process of its own as well: in this one it would share the clients' scheduler and
	// garbage collector.
	stop, _, b.files, err = start(self, "fileserver", dir)
	if err != nil {
		return err
	}
	defer stop()
	for _, s := range []struct {
		size, count int
	}{{64 << 10, 256}, {1 << 20, 128}, {256 << 20, 1}} {
		if err := b.objects(ctx, dir, s.size, s.count); err != nil {
			return err
		}
	}
	return b.crowd(ctx)
}

var listening = regexp.MustCompile(`listening on (http\S+)`)

// start runs a server and waits until it says where it listens.
func start(name string, args ...string) (stop func(), pid int, url string, err error) {
	cmd := exec.Command(name, args...)
	// Should this program be killed, its servers are not left behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, 0, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, 0, "", err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	// The port was chosen by the kernel, so the line is the only way to learn it.
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			return stop, cmd.Process.Pid, m[1], nil
		}
	}
	// The output has ended without it, so the server is going or gone.
	stop()
	return nil, 0, "", fmt.Errorf("%s %s did not say where it listens", filepath.Base(name), args[0])
}

// halfRandom is bytes of which half compress away.
func halfRandom(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	for i := 0; i+512 <= n; i += 512 {
		clear(b[i : i+256])
	}
	return b
}

func nameOf(size, i int) string { return fmt.Sprintf("o-%d-%d", size, i) }

// objects puts objects, and gets them from the API and as files.
func (b *bench) objects(ctx context.Context, dir string, size, count int) error {
	begun := time.Now()
	var waited time.Duration // for making them
	for i := range count {
		at := time.Now()
		data := halfRandom(uint64(size/1000+i), size)
		if err := os.WriteFile(filepath.Join(dir, nameOf(size, i)), data, 0o600); err != nil {
			return err
		}
		// Making the bytes and the reference's file is not the server's time.
		waited += time.Since(at)
		if err := b.ask(ctx, "PUT", b.api+"/v1/objects/"+nameOf(size, i), bytes.NewReader(data), nil); err != nil {
			return err
		}
	}
	put := time.Since(begun) - waited
	fmt.Printf("%8s  put, each durable, one after the other   %8.0f MB/s  %8.2f ms each\n", human(size), rate(size*count, put), ms(put, count))
	for _, clients := range []int{1, 4} {
		var ours, theirs []float64
		// Ours and the reference in turn in each round, so that both meet the same machine.
		for range b.rounds {
			for _, to := range []struct {
				base string
				list *[]float64
			}{{b.api + "/v1/objects/", &ours}, {b.files + "/", &theirs}} {
				took, err := b.getAll(ctx, to.base, size, count, clients)
				if err != nil {
					return err
				}
				*to.list = append(*to.list, rate(size*count*clients, took))
			}
		}
		o, f := median(ours), median(theirs)
		fmt.Printf("%8s  get, %d at a time                         %8.0f MB/s  FileServer %.0f MB/s: %.2f\n", human(size), clients, o, f, o/f)
	}
	return nil
}

// getAll has each of some clients get all objects.
func (b *bench) getAll(ctx context.Context, base string, size, count, clients int) (time.Duration, error) {
	begun := time.Now()
	var wg sync.WaitGroup
	errs := make([]error, clients)
	for c := range clients {
		wg.Go(func() {
			// Each client begins elsewhere, or all would ask for the same object at the same time.
			for i := range count {
				n := int64(0)
				errs[c] = errors.Join(errs[c], b.ask(ctx, "GET", base+nameOf(size, (i+c*count/clients)%count), nil, &n))
				if n != int64(size) {
					errs[c] = errors.Join(errs[c], fmt.Errorf("%d bytes of %d", n, size))
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begun), errors.Join(errs...)
}

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1 << 16, DisableCompression: true}}

// ask makes a request and counts the answer's bytes.
func (b *bench) ask(ctx context.Context, method, url string, body io.Reader, n *int64) error {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+b.token)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// To the end even of an error: only then is the connection used again.
	got, err := io.Copy(io.Discard, resp.Body)
	if n != nil {
		*n = got
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s", method, url, resp.Status)
	}
	return err
}

// crowd has many clients ask at once, for objects, lists and figures.
func (b *bench) crowd(ctx context.Context) error {
	// The kernel's peak only rises: with the one before, one sees whether the crowd raised it.
	before := b.memory("VmHWM")
	var done, failed atomic.Int64
	var first atomic.Value
	// One slice a client, so that the clients do not wait for each other over a lock.
	waits := make([][]time.Duration, b.clients)
	until := time.Now().Add(b.time)
	var wg sync.WaitGroup
	for c := range b.clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 1))
			for ctx.Err() == nil && time.Now().Before(until) {
				url := b.api + "/v1/objects/" + nameOf(64<<10, rng.IntN(256))
				// One request of a hundred is a list, which costs as much as many objects.
				if rng.IntN(100) == 0 {
					url = b.api + "/v1/objects?limit=100"
				}
				at := time.Now()
				err := b.ask(ctx, "GET", url, nil, nil)
				waits[c] = append(waits[c], time.Since(at))
				done.Add(1)
				if err != nil {
					failed.Add(1)
					// One error to show; the count says how many more.
					first.CompareAndSwap(nil, err)
				}
			}
		})
	}
	wg.Wait()
	all := slices.Concat(waits...)
	slices.Sort(all)
	at := func(p float64) time.Duration { return all[int(p*float64(len(all)-1))].Round(time.Millisecond / 10) }
	fmt.Printf("%d clients for %v: %d requests, %.0f a second, %d failed; waits p50 %v p99 %v max %v; server's peak memory %s, before %s\n",
		b.clients, b.time, done.Load(), float64(done.Load())/b.time.Seconds(), failed.Load(), at(0.5), at(0.99), at(1), b.memory("VmHWM"), before)
	if err, ok := first.Load().(error); ok {
		return fmt.Errorf("%d of %d requests failed, one with: %w", failed.Load(), done.Load(), err)
	}
	return nil
}

// memory reads a line of the server's status.
func (b *bench) memory(what string) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.pid))
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, what+":"); ok {
			kib, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
			return fmt.Sprintf("%d MiB", kib>>10)
		}
	}
	return "unknown"
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

func rate(bytes int, took time.Duration) float64 { return float64(bytes) / 1e6 / took.Seconds() }

func ms(took time.Duration, n int) float64 { return took.Seconds() * 1000 / float64(n) }

func human(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
