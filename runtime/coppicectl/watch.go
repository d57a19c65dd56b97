package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// recentEvents is how many events the watched tree shows below, if the window has room for them.
const recentEvents = 12

// watch shows the tree as it changes, until ctx ends.
func (c *command) watch(whole context.Context, t *tree) (err error) {
	ctx, cancel := context.WithCancelCause(whole)
	defer func() {
		if cancel(nil); whole.Err() != nil {
			err = nil // it was interrupted
		}
	}()
	terminal := c.view().width > 0 && !c.json()
	changes := make(chan event, 64)
	go func() { // ends with ctx
		cancel(t.follow(ctx, "events", nil, "", func(m message) error {
			var e event
			if err := json.Unmarshal(m.data, &e); err != nil {
				return err
			}
			select {
			case changes <- e:
			case <-ctx.Done():
			}
			return nil
		}))
	}()
	var (
		recent   []event
		last     []string
		drawn    view
		old      map[int]float64 // seconds of the CPU, by pid
		oldTime  time.Time
		percent  = map[int]float64{}
		nextLook = time.NewTimer(0)
		soon     = true                                   // it is near
		sizes    = time.NewTicker(200 * time.Millisecond) // a window has no signal on each system
		raw      json.RawMessage
		root     node
		changed  = true // since the last picture
		workers  []worker
	)
	defer sizes.Stop()
	if terminal {
		fmt.Fprint(c.out, "\x1b[?1049h\x1b[?25l") // the other screen, no cursor
		defer func() {
			fmt.Fprint(c.out, "\x1b[?25h\x1b[?1049l")
			c.lines(last)
		}()
	}
	draw := func() {
		v := c.view()
		drawn = v
		last = picture(v, root, workers, percent)
		shown := append([]string{}, last...)
		if terminal {
			if room := v.height - 1 - len(shown); room < 0 {
				shown = append(shown[:max(0, v.height-2)], shorten(fmt.Sprintf("… %d lines more: the window is too low", len(last)-max(0, v.height-2)), v.width))
			} else if room > 1 {
				shown = append(shown, "")
				for _, e := range recent[max(0, len(recent)-min(recentEvents, room-1)):] {
					shown = append(shown, eventText(v, e)...)
				}
			}
			// At once, each line over the old one: nothing flickers.
			fmt.Fprint(c.out, "\x1b[?2026h\x1b[H"+strings.Join(shown, "\x1b[K\r\n")+"\x1b[K\x1b[J\x1b[?2026l")
			return
		}
		if changed { // not each second, for a file or another program
			c.print(raw, func() []string { return append(last, "") })
		}
		changed = false
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e := <-changes:
			e.Lost, changed = 0, true // it looks at the present
			recent = append(recent, e)
			recent = recent[max(0, len(recent)-recentEvents):]
			if !soon { // events that come all the time must not put it off
				nextLook.Reset(50 * time.Millisecond) // for what comes with it
				soon = true
			}
		case <-sizes.C:
			if v := c.view(); terminal && root.Name != "" && (v.width != drawn.width || v.height != drawn.height) {
				draw()
			}
		case <-nextLook.C:
			nextLook.Reset(time.Second)
			soon, root, workers = false, node{}, nil
			if err := t.get(ctx, "tree", nil, &raw); err != nil {
				return err
			}
			if err := t.get(ctx, "workers", nil, &workers); err != nil {
				return err
			}
			if err := json.Unmarshal(raw, &root); err != nil {
				return err
			}
			if now := time.Now(); now.Sub(oldTime) > 900*time.Millisecond {
				used := map[int]float64{}
				clear(percent)
				for _, w := range workers {
					if w.CPU == nil {
						continue
					}
					used[w.PID] = *w.CPU
					if before, ok := old[w.PID]; ok {
						percent[w.PID] = 100 * (*w.CPU - before) / now.Sub(oldTime).Seconds()
					}
				}
				old, oldTime = used, now
			}
			draw()
		}
	}
}
