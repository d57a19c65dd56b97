package httpdrain

import (
	"net/http"
	"reflect"
	"sync"
	"time"
)

// Measure has served called after each request, on its goroutine, with how long its handler took
// and whether it failed: by a status of 500 or more, or by a panic. Requests that ask for an
// upgrade of their connection are left out. The server must not serve yet.
func (d *Drain) Measure(served func(took time.Duration, failed bool)) { d.served = served }

func (d *Drain) serveMeasured(rw http.ResponseWriter, r *http.Request) {
	began, returned := time.Now(), false
	defer func() { d.served(time.Since(began), !returned || statusOf(rw) >= http.StatusInternalServerError) }()
	d.inner.ServeHTTP(rw, r)
	returned = true
}

// statusFields are the indices of the field of each type of http.ResponseWriter that has the
// status.
var statusFields sync.Map // of reflect.Type to [][]int

// statusOf returns the status of an answer whose handler has returned; 0 if it is not known, or was
// not set. A writer around rw would cost each request an allocation, and hide methods; so the
// status is read where package http keeps it, of HTTP/1 and HTTP/2.
func statusOf(rw http.ResponseWriter) int {
	if u, ok := rw.(interface{ Unwrap() http.ResponseWriter }); ok { // of a Drain that has begun
		rw = u.Unwrap()
	}
	v := reflect.ValueOf(rw)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return 0
	}
	v = v.Elem()
	path, known := statusFields.Load(v.Type())
	if !known {
		path = findStatus(v.Type())
		statusFields.Store(v.Type(), path)
	}
	for _, i := range path.([]int) {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				return 0
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	if v.Kind() != reflect.Int {
		return 0
	}
	return int(v.Int())
}

// findStatus returns the way to the field with the status, from t on; nil if there is none.
func findStatus(t reflect.Type) []int {
	if f, ok := t.FieldByName("status"); ok && f.Type.Kind() == reflect.Int {
		return f.Index
	}
	state, ok := t.FieldByName("rws") // of HTTP/2
	if !ok || state.Type.Kind() != reflect.Pointer || state.Type.Elem().Kind() != reflect.Struct {
		return nil
	}
	if f, ok := state.Type.Elem().FieldByName("status"); ok && f.Type.Kind() == reflect.Int {
		return append(state.Index, f.Index...)
	}
	return nil
}
