package rules

import (
	"container/list"
	"iter"
	"slices"
)

// turns are queues, one of each tenant, that take turns. The zero value is empty.
type turns struct {
	tenants map[string]*tenant
	order   []*tenant // that have something, the one that is next first
	n       int       // in all queues
}

type tenant struct {
	name  string
	calls *list.List
}

// push puts v at the end of a tenant's queue.
func (t *turns) push(name string, v any) *list.Element { return t.queue(name).PushBack(v) }

// pushFront puts v before all else of a tenant.
func (t *turns) pushFront(name string, v any) *list.Element { return t.queue(name).PushFront(v) }

func (t *turns) queue(name string) *list.List {
	q := t.tenants[name]
	if q == nil {
		if t.tenants == nil {
			t.tenants = map[string]*tenant{}
		}
		q = &tenant{name, list.New()}
		t.tenants[name] = q
		t.order = append(t.order, q)
	}
	t.n++
	return q.calls
}

// next takes out what is first of the tenant whose turn it is. There must be something.
func (t *turns) next() any {
	q := t.order[0]
	t.order = append(t.order[1:], q) // behind the others
	v := q.calls.Front().Value
	t.remove(q.name, q.calls.Front())
	return v
}

func (t *turns) remove(name string, e *list.Element) {
	q := t.tenants[name]
	q.calls.Remove(e)
	t.n--
	if q.calls.Len() == 0 {
		delete(t.tenants, name)
		t.order = slices.DeleteFunc(t.order, func(o *tenant) bool { return o == q })
	}
}

// removeFunc takes out all that gone is true of.
func (t *turns) removeFunc(gone func(v any) bool) {
	for _, q := range slices.Clone(t.order) {
		for e := q.calls.Front(); e != nil; {
			following := e.Next()
			if gone(e.Value) {
				t.remove(q.name, e)
			}
			e = following
		}
	}
}

// all goes through all queues, in the order of the turns.
func (t *turns) all() iter.Seq[any] {
	return func(yield func(any) bool) {
		for _, q := range t.order {
			for e := q.calls.Front(); e != nil; e = e.Next() {
				if !yield(e.Value) {
					return
				}
			}
		}
	}
}

// of returns how much a tenant has.
func (t *turns) of(name string) int {
	if q := t.tenants[name]; q != nil {
		return q.calls.Len()
	}
	return 0
}

// longest returns the tenant that has the most; nil if there is nothing.
func (t *turns) longest() (most *tenant) {
	for _, q := range t.order {
		if most == nil || q.calls.Len() > most.calls.Len() {
			most = q
		}
	}
	return most
}
