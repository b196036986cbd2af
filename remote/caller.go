package remote

import (
	"context"

	"github.com/quarxtor/quarxfs/graph/budget"
	"github.com/quarxtor/quarxfs/store"
	"github.com/quarxtor/quarxfs/store/config"
)

// A Caller is who makes a request from another machine.
type Caller struct {
	Token   config.Token // of who shows none, only its scopes
	Address string       // as rates count it: an address, or what one customer has of IPv6
}

type callerKey struct{}

// WithCaller notes who asks.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns who asks. Without one it is the store's owner, over the control socket, or this
// process itself.
func CallerOf(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// Actor is the caller as the store notes it.
func (c Caller) Actor() store.Actor {
	if c.Token.Name == "" {
		return "anonymous"
	}
	return store.Actor("token " + c.Token.Name)
}

// actorOf is who asks; "": the owner.
func actorOf(ctx context.Context) store.Actor {
	if c, ok := CallerOf(ctx); ok {
		return c.Actor()
	}
	return ""
}

// onlyAppends reports whether the caller may do what needs a scope only because it may append.
func (c Caller) onlyAppends(scope config.Scope) bool {
	return c.Address != "" && !c.Token.Allows(scope)
}

// Client is whom shares count for: the token from everywhere, and the address with any token.
func (c Caller) Client() budget.Client {
	if c.Address == "" {
		return nil
	}
	list := budget.Client{"address " + c.Address}
	if c.Token.Name != "" {
		list = append(list, "token "+c.Token.Name)
	}
	return list
}
