// What is wrong, in words.
import { age, keyOf, now, store } from './store.js';
import { clock, plural } from './dom.js';
import { quarantined } from './jobs.js';

const ends = new Set(['exited', 'failed', 'start failed']);

// subject names what an event is about.
export const subject = (ev) => ev.name || (ev.slot != null ? `${ev.path}/${ev.slot}` : ev.path || 'master');

// severity of an event: bad, warn, good or nothing.
export function severity(ev) {
  if (ev.fault || ev.error || ends.has(ev.kind) || ev.kind === 'gave up' || ev.kind === 'goes on over its budget') return 'bad';
  if (['restarting', 'drain cut', 'leaked', 'due'].includes(ev.kind) || ev.forced) return 'warn';
  if (['started', 'up', 'replaced', 'reloaded', 'tree reloaded', 'tree upgraded', 'scaled', 'spare ready'].includes(ev.kind)) return 'good';
  return '';
}

// alerts returns {key, bad, text} for each thing that an operator should know now.
export function alerts() {
  const found = [], add = (key, bad, text) => found.push({ key, bad, text });
  const loops = new Map();
  let reload, upgrade, over;
  for (const ev of store.events) {
    if (ends.has(ev.kind) && age(ev.time) < 60) {
      const l = loops.get(subject(ev)) ?? { n: 0 };
      loops.set(subject(ev), { n: l.n + 1, reason: ev.reason || ev.error });
    }
    if (ev.kind === 'tree reloaded') reload = ev;
    if (ev.kind === 'tree reloading') reload = null;
    if (ev.kind === 'tree upgraded' || ev.kind === 'tree upgrading') upgrade = ev;
    if (ev.kind === 'gave up' || ev.kind === 'goes on over its budget') over = ev;
  }
  const pools = new Map(); // of 200 workers that end alike one line tells more
  for (const [name, l] of loops) {
    if (l.n < 3) continue;
    const pool = name.slice(0, Math.max(0, name.lastIndexOf('/'))) || name, p = pools.get(pool) ?? { names: [], n: 0 };
    pools.set(pool, { names: [...p.names, name], n: p.n + l.n, reason: l.reason });
  }
  for (const [pool, p] of pools) {
    const who = p.names.length === 1 ? `${p.names[0]} keeps` : `${p.names.length} children of ${pool} keep`;
    add('loop ' + pool, true, `${who} ending: ${p.n} times within the last minute${p.reason ? `, at last with: ${p.reason}` : ''}.`);
  }
  if (over && age(over.time) < 600) add('over ' + over.cursor, true, `${over.text}.`);
  if (reload?.error) add('reload', true, `The last reload, at ${clock(reload.time)}, failed: ${reload.error}`);
  if (upgrade?.error) add('upgrade', true, `The last upgrade, at ${clock(upgrade.time)}, failed: ${upgrade.error}`);
  for (const r of store.rows) {
    if (r.unwell) add('unwell ' + keyOf(r), true, `${r.name} is unwell: ${r.unwell}`);
    else if (r.beat_every_seconds && age(r.last_beat) > 4 * Math.max(1, r.beat_every_seconds) && r.state === 'running' && r.role !== 'draining') {
      add('hang ' + keyOf(r), true, `${r.name} hangs: it has not answered its heartbeat since ${clock(r.last_beat)}.`);
    }
  }
  const walk = (n, path) => {
    const at = path ? `${path}/${n.name.split('/').at(-1)}` : n.role === 'master' ? '' : n.name;
    if (n.budget && n.used / n.budget >= 0.7 && n.used > 0) {
      add('budget ' + at, n.used >= n.budget, `${at || 'The root'} has ${n.budget - n.used} of ${plural(n.budget, 'restart')} left: beyond, ${n.role === 'pool' ? 'its restarts come slowly, or it gives up' : 'it gives up'}.`);
    }
    if (n.leaked) add('leak ' + at, false, `${at}: ${plural(n.leaked, 'goroutine')} that should have ended still run.`);
    for (const c of n.children ?? []) walk(c, at);
  };
  if (store.tree) walk(store.tree, '');
  for (const l of store.listeners) {
    const name = l.name || l.address;
    if (l.refuses) add('refuses ' + name, true, `${name} refuses all connections: the pool that used it is gone for good.`);
    else if (l.paused) add('paused ' + name, false, `${name} is paused: new connections wait until it is resumed.`);
    if (l.counts?.waiting > 0 && l.counts.queue_age_seconds > 1) {
      add('queue ' + name, true, `Connections wait at ${name} for longer than 1 s: no worker takes them.`);
    }
  }
  for (const p of store.quarantines) {
    const keys = quarantined(p);
    if (keys.length) add('quarantine ' + p.pool, false, `${p.pool} refuses the ${p.kind === 'jobs' ? 'calls' : 'requests'} of ${plural(keys.length, 'key')}, for which workers died.`);
  }
  const most = 10;
  if (found.length > most) found.splice(most, Infinity, { key: 'more', bad: true, text: `And ${found.length - most} more.` });
  return found;
}

// upgrade returns the newest event of an upgrade, and whether it is that of its end; null if none was
// seen.
export function upgrade() {
  const ev = store.events.findLast((e) => e.kind === 'tree upgrading' || e.kind === 'tree upgraded');
  return ev ? { ev, end: ev.kind === 'tree upgraded', old: ev.kind === 'tree upgraded' && now() - Date.parse(ev.time) > 60_000 } : null;
}

// reloads returns how far the newest reload is: its event, the one of its end, and the slots; null if
// none was seen.
export function reloads() {
  const at = store.events.findLastIndex((ev) => ev.kind === 'tree reloading');
  if (at < 0) return null;
  const begin = store.events[at], slots = new Map();
  let end;
  for (const r of store.rows) {
    if (r.slot != null && r.role === 'worker' && Date.parse(r.since) <= Date.parse(begin.time)) slots.set(r.name, { name: r.name, state: 'waiting' });
  }
  for (const ev of store.events.slice(at + 1)) {
    if (ev.kind === 'tree reloaded') { end = ev; break; }
    if (ev.slot == null || ev.path === 'listeners') continue;
    const name = `${ev.path}/${ev.slot}`;
    if (ev.kind === 'starting' && ev.why === 'reload') slots.set(name, { name, state: 'starting' });
    if (ev.kind === 'replaced' && ev.why === 'reload') slots.set(name, { name, state: 'ready', took: ev.took_seconds });
    if (ev.kind === 'failed' && slots.get(name)?.state === 'starting') slots.set(name, { name, state: 'failed' });
  }
  for (const s of slots.values()) if (end && !end.error && s.state === 'waiting') s.state = 'done';
  const list = [...slots.values()].sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
  return { begin, end, slots: list, old: end && now() - Date.parse(end.time) > 60_000 };
}
