package runs

import "os"

// Request is something asked of a running run by a file in its control folder.
type Request string

// The requests, in the order in which they are served.
const (
	RequestSample Request = "sample"
	RequestSave   Request = "save"
	RequestStop   Request = "stop"
)

// Requests returns what is asked for now, in the order in which it should be done.
func (r *Run) Requests() []Request {
	var out []Request
	for _, q := range []Request{RequestSample, RequestSave, RequestStop} {
		if _, err := os.Lstat(r.Path(controlDir, string(q))); err == nil {
			out = append(out, q)
		}
	}
	return out
}

// Done removes the file of a request.
func (r *Run) Done(q Request) error {
	if err := os.Remove(r.Path(controlDir, string(q))); err != nil && !os.IsNotExist(err) {
		return outputError(r.Path(controlDir, string(q)), err)
	}
	return nil
}
