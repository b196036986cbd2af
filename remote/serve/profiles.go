package serve

import (
	"net/http"
	"net/http/pprof"
	"runtime"
	"strconv"
	"sync"
)

// ProfileRoutes serves Go's profiles of the process. Contention is recorded
// only while somebody asks for it, since that costs each lock a little: the
// profiles of mutexes and of blocking need "seconds".
func ProfileRoutes(mux *http.ServeMux) {
	var mutexes, blocking sync.Mutex
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/debug/pprof/mutex", recorded("mutex", &mutexes, func() (stop func()) {
		before := runtime.SetMutexProfileFraction(1)
		return func() { runtime.SetMutexProfileFraction(before) }
	}))
	mux.HandleFunc("/debug/pprof/block", recorded("block", &blocking, func() (stop func()) {
		runtime.SetBlockProfileRate(blockRate)
		return func() { runtime.SetBlockProfileRate(0) }
	}))
}

// blockRate is how many nanoseconds of blocking are sampled once on average.
const blockRate = 1000

// recorded serves a profile that is recorded from the request on, for one
// request at a time.
func recorded(name string, one *sync.Mutex, start func() (stop func())) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if n, err := strconv.Atoi(r.FormValue("seconds")); err != nil || n <= 0 {
			http.Error(w, "say how long to record: "+r.URL.Path+"?seconds=5", http.StatusBadRequest)
			return
		}
		if !one.TryLock() {
			http.Error(w, "the profile "+name+" is being recorded for somebody else", http.StatusConflict)
			return
		}
		defer one.Unlock()
		defer start()()
		pprof.Handler(name).ServeHTTP(w, r)
	}
}
