// Package also has errors that are more than their text says.
package also

// Is returns an error with the text of err that is err and all of kinds as well, for errors.Is and
// errors.As. What kinds say would only repeat what err says better.
func Is(err error, kinds ...error) error {
	return &several{err, append([]error{err}, kinds...)}
}

type several struct {
	error
	all []error
}

// Unwrap is what errors.Is looks for.
func (s *several) Unwrap() []error { return s.all }
