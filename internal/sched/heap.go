package sched

// heap is a binary heap whose items know their place in it.
type heap[T any] struct {
	items []T
	less  func(a, b T) bool
	place func(T) *int // where an item keeps its index; -1 when it is in none
}

func (h *heap[T]) len() int { return len(h.items) }

func (h *heap[T]) top() T { return h.items[0] }

func (h *heap[T]) push(x T) {
	h.items = append(h.items, x)
	*h.place(x) = len(h.items) - 1
	h.up(len(h.items) - 1)
}

// remove takes an item out of its place.
func (h *heap[T]) remove(x T) {
	i, last := *h.place(x), len(h.items)-1
	h.swap(i, last)
	h.items = h.items[:last]
	*h.place(x) = -1
	if i < last {
		h.down(i)
		h.up(i)
	}
}

// fix restores the order after an item has changed.
func (h *heap[T]) fix(x T) {
	i := *h.place(x)
	h.down(i)
	h.up(i)
}

func (h *heap[T]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.place(h.items[i]), *h.place(h.items[j]) = i, j
}

func (h *heap[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(h.items[i], h.items[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *heap[T]) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h.items); child++ {
			if h.less(h.items[child], h.items[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}
