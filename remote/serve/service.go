package serve

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"
)

// A Service answers HTTP requests until it is closed, and knows when none is at
// work any more.
type Service struct {
	http   *http.Server
	cancel context.CancelFunc  // of the requests at work
	places *semaphore.Weighted // one for each of them; Close takes all
}

const (
	allPlaces = math.MaxInt64
	breakTime = 10 * time.Second // for requests to end that were broken off
)

var errGoOn = errors.New("requests go on, though they were broken off")

// Serve has s answer on l in the background from now on. The service sets its
// BaseContext and ErrorLog.
func Serve(l net.Listener, s *http.Server, log *slog.Logger) *Service {
	ctx, cancel := context.WithCancel(context.Background())
	v := &Service{http: s, cancel: cancel, places: semaphore.NewWeighted(allPlaces)}
	s.Handler = v.counted(s.Handler)
	s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	s.BaseContext = func(net.Listener) context.Context { return ctx }
	go func() { _ = s.Serve(l) }()
	return v
}

// Also has the service answer on another listener, too; once it is closed, on none.
func (v *Service) Also(l net.Listener) { go func() { _ = v.http.Serve(l) }() }

func (v *Service) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !v.places.TryAcquire(1) { // Close waits for all of them
			http.Error(w, "the server is leaving", http.StatusServiceUnavailable)
			return
		}
		defer v.places.Release(1)
		h.ServeHTTP(w, r)
	})
}

// Close lets nobody in, gives the requests at work until ctx ends, then breaks them
// off, and returns when they have ended. An error says that some have not after 10 s.
func (v *Service) Close(ctx context.Context) error {
	var err error
	if v.http.Shutdown(ctx) != nil {
		v.cancel()
		err = v.http.Close()
	}
	v.cancel()
	last, cancel := context.WithTimeout(context.Background(), breakTime)
	defer cancel()
	if v.places.Acquire(last, allPlaces) != nil {
		err = errors.Join(err, errGoOn)
	}
	return err
}
