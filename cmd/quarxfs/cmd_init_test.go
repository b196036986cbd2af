package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestNothingIsLeftOfARefusedInit has what makes a store refused for each reason that can be known
// before.
func TestNothingIsLeftOfARefusedInit(t *testing.T) {
	if testing.Short() || openFUSE() != nil {
		t.Skip("no FUSE, or -short")
	}
	dir := t.TempDir()
	t.Chdir(dir)
	t.Cleanup(func() {
		if err := cleanUp(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir("m", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("file", []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo("pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	mount, local := []string{"mount", "--init", "s", "m"}, []string{"--listen", "127.0.0.1:0"}
	for _, c := range []struct{ command, flags []string }{
		{mount, []string{"--metrics", "nowhere"}},
		{mount, []string{"--metrics", "203.0.113.9:1"}},
		{mount, []string{"--metrics", ":0"}},
		{mount, []string{"--listen", "127.0.0.1"}},
		{mount, []string{"--listen", "203.0.113.9:1", "--insecure"}},
		{mount, []string{"--listen", "203.0.113.9:1", "--tls"}},
		{mount, append(local, "--tls-cert", "missing", "--tls-key", "missing")},
		{mount, append(local, "--tls-cert", "pipe", "--tls-key", "pipe")},
		{mount, append(local, "--tls", "--client-ca", "missing")},
		{mount, append(local, "--tls", "--client-ca", "pipe")},
		{mount, append(local, "--tls", "--client-ca", "file")},
		{mount, append(local, "--tls", "--client-fingerprint", "xy")},
		{mount, append(local, "--anonymous", "read")},
		{mount, []string{"--tls"}},
		{mount, []string{"-o", "nonsense"}},
		{mount, []string{"-o", "memory=lots"}},
		{mount, []string{"--memory", "1KiB"}},
		{mount, []string{"--snapshot-every", "soon"}},
		{mount, []string{"--transport", "pigeon"}},
		{[]string{"mount", "--init", "s", "file"}, nil},
		{[]string{"mount", "--init", "s", "s/m"}, nil},
		{[]string{"init", "s"}, []string{"--block-size", "5000"}},
		{[]string{"init", "s"}, []string{"--segment-size", "1"}},
		{[]string{"init", "s"}, []string{"--compression", "lzma"}},
	} {
		line := append(append([]string{}, c.command...), c.flags...)
		cmd := exec.CommandContext(t.Context(), "quarxfs", line...)
		cmd.WaitDelay = time.Second
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("%q: %s", line, out)
		}
		if _, err := os.Lstat(filepath.Join(dir, "s")); err == nil {
			t.Errorf("%q leaves a store behind", line)
			if err := os.RemoveAll("s"); err != nil {
				t.Fatal(err)
			}
		}
	}
}
