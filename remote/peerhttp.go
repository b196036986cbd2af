package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// stallTime is how long a sync waits for the next record of a stream.
const stallTime = 60 * time.Second

type newLease struct {
	For string `json:"for"`
}

type leaseAnswer struct {
	ID store.LeaseID `json:"id"`
}

type linkRequest struct {
	ID store.ID `json:"id"`
}

func leasePath(lease store.LeaseID) string { return "/v1/sync/leases/" + lease.String() }

func linkPath(name string) string { return "/v1/sync/snapshots/" + url.PathEscape(name) }

// NewLease implements Peer.
func (c *Client) NewLease(ctx context.Context, whose string) (store.LeaseID, error) {
	var a leaseAnswer
	err := c.post(ctx, http.MethodPost, "/v1/sync/leases", newLease{whose}, &a)
	return a.ID, err
}

// Keep implements Peer.
func (c *Client) Keep(ctx context.Context, lease store.LeaseID, ids []store.ID) ([]bool, error) {
	resp, err := c.do(ctx, http.MethodPost, leasePath(lease)+"/keep", bytes.NewReader(packIDs(ids)))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	has, err := readBits(resp.Body, len(ids))
	if err == nil {
		err = drain(resp.Body)
	}
	return has, err
}

// EndLease implements Peer.
func (c *Client) EndLease(ctx context.Context, lease store.LeaseID) error {
	return c.call(ctx, http.MethodDelete, leasePath(lease), nil, &struct{}{})
}

// Records implements Peer. It takes no record that was not asked for, and none
// twice.
func (c *Client) Records(ctx context.Context, ids []store.ID, fn func(store.Record) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stallTime, func() { cancel(errStalled) })
	defer stall.Stop()
	resp, err := c.do(ctx, http.MethodPost, "/v1/sync/records", bytes.NewReader(packIDs(ids)))
	if err != nil {
		return orCause(ctx, err)
	}
	defer resp.Body.Close()
	n := 0
	err = ReadRecords(bufio.NewReaderSize(resp.Body, 64<<10), len(ids), nil, func(r store.Record) error {
		// Else a peer could fill the store with what nobody wants.
		if r.ID != ids[n] {
			return fmt.Errorf("block %s: %w: %w", store.ID(r.ID).Short(), errUnasked, store.ErrCorrupt)
		}
		n++
		// Each record is a sign of life; how long all of them take says nothing.
		stall.Reset(stallTime)
		return fn(r)
	})
	if err == nil && n < len(ids) {
		// A good end with fewer records: the peer may not leave out what it was asked for.
		err = fmt.Errorf("%d of %d blocks came: %w", n, len(ids), ErrCut)
	}
	if err == nil {
		err = drain(resp.Body)
	}
	return orCause(ctx, err)
}

var errStalled = fmt.Errorf("the peer has sent nothing for %v: %w", stallTime, ErrCut)

func orCause(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

// PutRecords implements Peer.
func (c *Client) PutRecords(ctx context.Context, lease store.LeaseID, source func(put func(store.Record) error) error) error {
	r, w := io.Pipe()
	made := make(chan error, 1)
	go func() {
		out := bufio.NewWriterSize(w, 64<<10)
		rw := NewRecordWriter(out)
		err := source(rw.Write)
		if err == nil {
			err = rw.End()
		}
		if err == nil {
			err = out.Flush()
		}
		// Before made is sent to: the request ends by it, and call returns.
		w.CloseWithError(err)
		made <- err
	}()
	err := c.call(ctx, http.MethodPost, leasePath(lease)+"/records", r, &struct{}{})
	// An answer may come before all was sent, as for a full disk: source has to end, too.
	r.CloseWithError(errGone)
	serr := <-made
	cut := err != nil && errors.Is(serr, io.ErrClosedPipe) // by the transport, which says why
	if serr != nil && !errors.Is(serr, errGone) && !cut {
		return serr // why the request could not be whole
	}
	return err
}

var errGone = errors.New("the request has ended")

// LinkSnapshot implements Peer.
func (c *Client) LinkSnapshot(ctx context.Context, name string, id store.ID) error {
	return c.post(ctx, http.MethodPut, linkPath(name), linkRequest{id}, &struct{}{})
}

// UnlinkSnapshot implements Peer.
func (c *Client) UnlinkSnapshot(ctx context.Context, name string, id store.ID) error {
	return c.call(ctx, http.MethodDelete, linkPath(name)+"?id="+id.String(), nil, &struct{}{})
}

// SetRemote implements Remotes.
func (c *Client) SetRemote(ctx context.Context, r config.Remote) error {
	return c.post(ctx, http.MethodPut, "/v1/remotes", r, &struct{}{})
}

// RemoveRemote implements Remotes.
func (c *Client) RemoveRemote(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/v1/remotes/"+url.PathEscape(name), nil, &struct{}{})
}

// NoteSync implements Remotes.
func (c *Client) NoteSync(ctx context.Context, n store.SyncNote) error {
	return c.post(ctx, http.MethodPost, "/v1/sync/notes", n.Bounded(), &struct{}{})
}

// SyncState implements Remotes.
func (c *Client) SyncState(ctx context.Context) (s SyncState, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/sync", nil, &s)
	return s, err
}

// syncRoutes are for peers.
func (s *server) syncRoutes() []route {
	return []route{
		{"POST /v1/sync/leases", brings, "Keep what is sent from being swept", none, jsonOf(newLease{}), jsonOf(leaseAnswer{}), func(w http.ResponseWriter, r *http.Request) {
			answerBody(s, w, r, func(ctx context.Context, n newLease) (leaseAnswer, error) {
				id, err := s.node.NewLease(ctx, n.For)
				return leaseAnswer{id}, err
			})
		}},
		{"DELETE /v1/sync/leases/{lease}", brings, "End a lease", none, nothing, jsonOf(struct{}{}), s.onLease(func(w http.ResponseWriter, r *http.Request, lease store.LeaseID) {
			s.answer(w, r, struct{}{}, s.node.EndLease(r.Context(), lease))
		})},
		{"POST /v1/sync/leases/{lease}/keep", brings, "Say which blocks are missing, and keep the others", none, rawBytes, rawBytes, s.onLease(s.keep)},
		{"POST /v1/sync/leases/{lease}/records", imports, "Send records of blocks", none, records, jsonOf(struct{}{}), s.onLease(s.importRecords)},
		{"POST /v1/sync/records", fetches, "Fetch records of blocks", none, rawBytes, records, s.exportRecords},
		{"PUT /v1/sync/snapshots/{name}", brings, "Name a snapshot that was sent", none, jsonOf(linkRequest{}), jsonOf(struct{}{}), func(w http.ResponseWriter, r *http.Request) {
			answerBody(s, w, r, func(ctx context.Context, a linkRequest) (struct{}, error) {
				return struct{}{}, s.node.LinkSnapshot(ctx, r.PathValue("name"), a.ID)
			})
		}},
		{"DELETE /v1/sync/snapshots/{name}", syncs, "Remove a snapshot that was sent", []param{{"id", store.ID{}, "of the snapshot that has the name"}}, nothing, jsonOf(struct{}{}), func(w http.ResponseWriter, r *http.Request) {
			var id store.ID
			err := id.UnmarshalText([]byte(r.URL.Query().Get("id")))
			if err != nil {
				err = fmt.Errorf("%w: id: %v", ErrRequest, err)
			} else {
				err = s.node.UnlinkSnapshot(r.Context(), r.PathValue("name"), id)
			}
			s.answer(w, r, struct{}{}, err)
		}},
	}
}

// remoteRoutes are for the store's owner only.
func remoteRoutes(mux *http.ServeMux, s *server) {
	mux.HandleFunc("PUT /v1/remotes", func(w http.ResponseWriter, r *http.Request) {
		answerBody(s, w, r, func(ctx context.Context, in config.Remote) (struct{}, error) {
			return struct{}{}, s.node.SetRemote(ctx, in)
		})
	})
	mux.HandleFunc("DELETE /v1/remotes/{name}", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, struct{}{}, s.node.RemoveRemote(r.Context(), r.PathValue("name")))
	})
	mux.HandleFunc("POST /v1/sync/notes", func(w http.ResponseWriter, r *http.Request) {
		answerBody(s, w, r, func(ctx context.Context, n store.SyncNote) (struct{}, error) {
			return struct{}{}, s.node.NoteSync(ctx, n)
		})
	})
	mux.HandleFunc("GET /v1/sync", func(w http.ResponseWriter, r *http.Request) {
		state, err := s.node.SyncState(r.Context())
		s.answer(w, r, state, err)
	})
}

// onLease reads the lease that a path names.
func (s *server) onLease(do func(http.ResponseWriter, *http.Request, store.LeaseID)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var lease store.LeaseID
		if err := lease.UnmarshalText([]byte(r.PathValue("lease"))); err != nil {
			s.fail(w, r, err)
			return
		}
		do(w, r, lease)
	}
}

func (s *server) keep(w http.ResponseWriter, r *http.Request, lease store.LeaseID) {
	ids, err := readIDs(r.Body)
	var has []bool
	if err == nil {
		has, err = s.node.Keep(r.Context(), lease, ids)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(packBits(has)) // the client has left
}

func (s *server) importRecords(w http.ResponseWriter, r *http.Request, lease store.LeaseID) {
	rc := http.NewResponseController(w)
	body := bufio.NewReaderSize(r.Body, 64<<10)
	err := s.node.PutRecords(r.Context(), lease, func(put func(store.Record) error) error {
		return ReadRecords(body, MaxBatch, func(raw int64) (func(), error) { return s.roomFor(r.Context(), raw) }, func(rec store.Record) error {
			_ = rc.SetReadDeadline(time.Now().Add(stallTime)) // a test's writer has none
			return put(rec)
		})
	})
	// Taken back, as the connection serves other requests later.
	_ = rc.SetReadDeadline(time.Time{})
	if errors.Is(err, ErrCut) {
		err = fmt.Errorf("%w: %w", ErrRequest, err)
	}
	s.answer(w, r, struct{}{}, err)
}

// roomFor waits until a record may be in memory, packed and plain, before any of it is read.
func (s *server) roomFor(ctx context.Context, raw int64) (done func(), err error) {
	caller, _ := CallerOf(ctx)
	if err := s.arriving.Take(ctx, caller.Client(), 2*raw); err != nil {
		return nil, err
	}
	return func() { s.arriving.Give(caller.Client(), 2*raw) }, nil
}

func (s *server) exportRecords(w http.ResponseWriter, r *http.Request) {
	ids, err := readIDs(r.Body)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", contentRecords)
	out := bufio.NewWriterSize(w, 64<<10)
	rw := NewRecordWriter(out)
	err = s.node.Records(r.Context(), ids, func(rec store.Record) error {
		_ = rc.SetWriteDeadline(time.Now().Add(stallTime))
		return rw.Write(rec)
	})
	switch {
	case err == nil:
		err = rw.End()
	// Nothing is on its way before out is flushed, so the failure can be the status.
	case rw.n == 0:
		s.fail(w, r, err)
		return
	default:
		err = rw.fail(err)
	}
	if err == nil {
		_ = out.Flush() // the client has left
	}
	_ = rc.SetWriteDeadline(time.Time{})
}
