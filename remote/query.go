package remote

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
)

func setText(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

func setNumber(q url.Values, key string, value int64) {
	if value != 0 {
		q.Set(key, strconv.FormatInt(value, 10))
	}
}

// number reads a parameter that is 0 when missing and never negative.
func number(q url.Values, key string) (int64, error) {
	if !q.Has(key) {
		return 0, nil
	}
	n, err := strconv.ParseInt(q.Get(key), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: %s=%q is no number", ErrRequest, key, q.Get(key))
	}
	return n, nil
}

// onlyKnown refuses parameters that would be ignored.
func onlyKnown(q url.Values, keys ...string) error {
	for key := range q {
		if !slices.Contains(keys, key) {
			return fmt.Errorf("%w: parameter %q is not known", ErrRequest, key)
		}
	}
	return nil
}

// withQuery appends the parameters to a path.
func withQuery(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}
