package daemon

import (
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/quarxtor/quarxfs/remote/serve"
	"github.com/quarxtor/quarxfs/store"
)

// TestStoreClosesLast: a request on the control socket that is at work when the
// daemon leaves is broken off, and finds the store open until it has ended.
func TestStoreClosesLast(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := store.Init(dir, store.DefaultConfig()); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{opts: &Options{Store: dir}, log: slog.New(slog.DiscardHandler), store: st}
	l, err := listenControl(st.Path(SocketName))
	if err != nil {
		t.Fatal(err)
	}
	began, found := make(chan struct{}), make(chan error, 1)
	d.control = serve.Serve(l, &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		found <- st.Commit()
	})}, d.log)
	client := Client(dir, "")
	defer client.Close()
	asked := make(chan error, 1)
	go func() { asked <- client.Sync(t.Context()) }()
	<-began
	if err := d.closeAll(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-found:
		if err != nil {
			t.Errorf("the request found the store so: %v", err)
		}
	default:
		t.Error("the store closed while a request was at work")
	}
	if err := <-asked; err == nil {
		t.Error("the request was answered")
	}
}
