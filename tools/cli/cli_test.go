package cli

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
)

// TestMain is the tool that the test runs, when it is run as one.
func TestMain(m *testing.M) {
	if os.Getenv("CLI_TEST_TOOL") == "" {
		os.Exit(m.Run())
	}
	cmd := &cobra.Command{Use: "tool", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		if args[0] == "wait" {
			if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
				return err
			}
			<-cmd.Context().Done()
			return cmd.Context().Err()
		}
		return nil
	}}
	Main(cmd)
}

func TestMainOfATool(t *testing.T) {
	for _, tc := range []struct {
		name   string
		args   []string
		status int
		said   string
	}{
		{"success", []string{"work"}, 0, ""},
		{"wrong arguments", nil, 1, "tool: accepts 1 arg(s), received 0\n"},
		{"unknown flag", []string{"--size", "1"}, 1, "tool: unknown flag: --size\n"},
		{"a signal cancels the context", []string{"wait"}, 1, "tool: context canceled\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], tc.args...)
			cmd.Env = append(os.Environ(), "CLI_TEST_TOOL=1")
			var said strings.Builder
			cmd.Stderr = &said
			_ = cmd.Run() // its status is looked at
			if got := cmd.ProcessState.ExitCode(); got != tc.status || said.String() != tc.said {
				t.Errorf("status %d, said %q; want %d, %q", got, said.String(), tc.status, tc.said)
			}
		})
	}
}
