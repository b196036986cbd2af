package serve_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/quarxtor/quarxfs/remote/serve"
)

// serveOne has h answer one request, whose end is told.
func serveOne(t *testing.T, h http.HandlerFunc) (*serve.Service, <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serve.Serve(l, &http.Server{Handler: h}, slog.New(slog.DiscardHandler))
	client := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String())
		if err == nil {
			resp.Body.Close()
		}
		client <- err
	}()
	return s, client
}

// TestServiceWaits: when Close returns no request is at work any more, also none that
// takes its time after it was broken off.
func TestServiceWaits(t *testing.T) {
	began, broken, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	s, client := serveOne(t, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(broken)
		<-goOn
		ended.Store(true)
	})
	<-began
	now, cancel := context.WithCancel(t.Context())
	cancel()
	closed := make(chan error, 1)
	go func() { closed <- s.Close(now) }()
	<-broken
	select {
	case <-closed:
		t.Error("Close did not wait for a request")
	default:
	}
	close(goOn)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if !ended.Load() {
		t.Error("Close returned while a request was at work")
	}
	if err := <-client; err == nil {
		t.Error("the request was not broken off")
	}
}

// TestServiceFinishes: requests may end by themselves.
func TestServiceFinishes(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	s, client := serveOne(t, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-goOn
		if r.Context().Err() != nil {
			t.Error("it was broken off")
		}
	})
	<-began
	closed := make(chan error, 1)
	go func() { closed <- s.Close(t.Context()) }()
	close(goOn)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := <-client; err != nil {
		t.Error(err)
	}
}
