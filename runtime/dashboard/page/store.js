// What the page knows of the tree, and how it learns it.

export const points = 180; // seconds of history that are kept

export const store = {
  about: null, // of /v1/
  tree: null,
  rows: [], // of /v1/workers
  listeners: [],
  actors: [],
  jobs: [], // what the queues of pools of jobs show, with the pool's path and the actor
  quarantines: [], // these, and what the quarantines of requests show
  events: [], // the latest, oldest first
  history: new Map(), // of a process or listener: {memory, cpu, rate, …}
  failed: new Map(), // why the last requests failed, by what they were for
  fresh: Date.now(), // when something came last
  deaf: null, // since when no events come
  skew: 0, // the tree's clock minus ours, ms
};

// now is the time of the tree's clock.
export const now = () => Date.now() + store.skew;

export const age = (time) => (now() - Date.parse(time)) / 1000;

// ask returns the answer to a request: JSON, or a text. An error has the words of the answer.
export async function ask(path, { method = 'GET', seconds = 10, text = false, signal = AbortSignal.timeout(1000 * seconds) } = {}) {
  let resp, answer;
  try {
    resp = await fetch('v1/' + path, { method, signal, cache: 'no-store' });
    const date = Date.parse(resp.headers.get('Date'));
    if (Math.abs(date - Date.now() - store.skew) > 2000) store.skew = date - Date.now(); // Date has whole seconds
    const json = resp.headers.get('Content-Type')?.includes('json');
    if (!json && !text && resp.ok) throw new SyntaxError(); // the page of a login, for example
    answer = json ? await resp.json() : await resp.text();
  } catch (e) {
    throw new Error(e.name === 'TimeoutError' ? `no answer within ${seconds} s` : e.name === 'AbortError' ? 'cancelled'
      : e.name === 'SyntaxError' ? 'an answer that is none of a tree' : 'the tree does not answer');
  }
  if (resp.ok) return answer;
  const e = new Error(answer.error ?? `${resp.status} ${resp.statusText}`);
  e.status = resp.status;
  throw e;
}

export const keyOf = (row) => row.id ? `#${row.id}` : row.path === '' || row.role === 'master' ? 'master' : row.path;

// remember adds what a process or listener shows now to its history.
function remember(key, at, totals, values) {
  let h = store.history.get(key);
  if (!h) store.history.set(key, h = {});
  for (const [name, v] of Object.entries(values)) (h[name] ??= []).push(v ?? 0);
  const seconds = (at - h.at) / 1000;
  for (const [name, v] of Object.entries(totals)) {
    if (seconds > 0) (h[name] ??= []).push(Math.max(0, (v - h.totals[name]) / seconds) || 0);
  }
  Object.assign(h, { at, totals });
  for (const list of Object.values(h)) if (list.length > points) list.shift();
}

const beats = new Map(); // what each process had served at its last heartbeat, and how many a second since the one before

function requestRate(key, r) {
  if (!r.last_beat) return 0;
  const at = Date.parse(r.last_beat), was = beats.get(key);
  if (!was || at > was.at) beats.set(key, { at, requests: r.requests ?? 0, rate: was ? 1000 * ((r.requests ?? 0) - was.requests) / (at - was.at) : 0 });
  return beats.get(key).rate;
}

function takeWorkers(rows, at) {
  store.rows = rows;
  const seen = new Set();
  for (const r of rows) {
    const key = keyOf(r);
    seen.add(key);
    remember(key, at, { cpu: 100 * (r.cpu_seconds ?? 0), rate: r.connections_claimed }, { memory: r.memory_bytes, open: r.connections, requests: requestRate(key, r) });
  }
  for (const key of store.history.keys()) if (!key.startsWith('listener ') && !seen.has(key)) {
    store.history.delete(key);
    beats.delete(key);
  }
}

export const listenerKey = (l) => `listener ${l.name ?? ''} ${l.network} ${l.address}`;

function takeListeners(list, at) {
  store.listeners = list;
  for (const l of list) if (l.counts) remember(listenerKey(l), at, { rate: l.counts.accepted }, { waiting: l.counts.waiting });
}

// last returns the newest value of a history.
export const last = (key, name) => store.history.get(key)?.[name]?.at(-1);

const streams = new Set(); // functions that open one anew

// follow reads a stream until stop is called, again after each break, and misses nothing that is kept.
// heard is called with whether it is open, and whether it was before.
export function follow(path, kind, after, take, heard = () => {}) {
  let source, timer, cursor = after, before = false;
  const open = () => {
    clearTimeout(timer);
    source?.close();
    heard(false, before);
    source = new EventSource(`v1/${path}${path.includes('?') ? '&' : '?'}follow=1&after=${cursor}`);
    source.addEventListener('open', () => { heard(true, before); before = true; });
    source.addEventListener(kind, (e) => {
      const v = JSON.parse(e.data);
      cursor = v.cursor;
      take(v);
    });
    source.addEventListener('error', () => { // the browser's own repetition would ask with the old cursor
      source.close();
      clearTimeout(timer);
      timer = setTimeout(open, 1000);
      heard(false, before);
    });
  };
  open();
  streams.add(open);
  return () => {
    streams.delete(open);
    clearTimeout(timer);
    source.close();
    return cursor;
  };
}

// quarantinesOf asks the queues of pools of jobs and the quarantines of requests, at most 20 of them. One
// that does not answer has no row.
const quarantinesOf = async (actors) => (await Promise.all(actors.filter((a) => a.kind === 'jobs' || a.kind === 'quarantine').slice(0, 20).map((a) =>
  ask(`actors/state?actor=${encodeURIComponent(a.path)}`).then((s) => s.value && { ...s.value, kind: a.kind, actor: a.path, pool: a.path.replace(/\/[^/]*$/, '') }, () => null)))).filter(Boolean);

// watch keeps the store up to date while the page is visible, and calls draw after each change.
export function watch(draw) {
  let timer, treeTimer, fetching = false, stale = false, stopEvents, cursor, wanted = 0;

  const failed = (what) => (e) => { store.failed.set(what, e.message); draw(); };

  // A tree that was started anew has other cursors, and maybe another page.
  const about = async () => {
    const a = await ask('');
    if (store.about && store.about.started !== a.started) location.reload();
    store.about = a;
    return a;
  };

  const tree = async () => {
    clearTimeout(treeTimer);
    treeTimer = null;
    if (fetching) { stale = true; return; }
    [fetching, stale] = [true, false];
    const began = performance.now();
    try {
      store.tree = await ask('tree');
      store.failed.delete('tree');
      draw();
    } catch (e) { failed('tree')(e); }
    fetching = false;
    if (stale) treeSoon(200 + 5 * (performance.now() - began));
  };
  const treeSoon = (ms = 50) => { treeTimer ??= setTimeout(tree, ms); };

  const taken = (ev) => {
    cursor = ev.cursor;
    store.events.push(ev);
    if (store.events.length > 600) store.events.splice(0, 100);
    if (ev.kind === 'tree reloaded' || ev.kind === 'asked by an operator') about().catch(failed('poll'));
    treeSoon();
    draw();
  };
  // A tree that was started anew between two polls is found by the break of its stream.
  const heard = (open, before) => {
    store.deaf = open ? null : store.deaf ?? Date.now();
    if (open && before) about().catch(failed('poll'));
    draw();
  };

  const poll = async () => {
    clearTimeout(timer);
    const mine = ++wanted, began = performance.now();
    let pause = 1000;
    try {
      const asked = [ask('workers'), ask('listeners'), ask('actors')];
      const again = store.failed.size > 0 || Date.now() - store.fresh > 15_000;
      if (!store.about || again) { asked.push(about()); treeSoon(0); }
      const [rows, listeners, actors] = await Promise.all(asked);
      const quarantines = await quarantinesOf(actors);
      const at = performance.now();
      takeWorkers(rows, at);
      takeListeners(listeners, at);
      [store.actors, store.quarantines, store.jobs] = [actors, quarantines, quarantines.filter((q) => q.kind === 'jobs')];
      if (wanted !== mine) return;
      store.failed.delete('poll');
      store.fresh = Date.now();
      if (again) for (const open of streams) open(); // they may be dead without a word
      if (!stopEvents) {
        cursor ??= Math.max(0, store.about.cursor - 300);
        stopEvents = follow('events', 'event', cursor, taken, heard);
      }
      pause = Math.min(10_000, Math.max(1000 - (at - began), 9 * (at - began))); // a large tree is asked less often
      draw();
    } catch (e) { failed('poll')(e); }
    if (wanted === mine) timer = setTimeout(poll, pause);
  };

  const slow = setInterval(() => { if (!document.hidden) treeSoon(); }, 10_000);

  const visible = () => {
    if (!document.hidden) { poll(); treeSoon(0); return; }
    wanted++; // what is under way does not go on
    clearTimeout(timer);
    stopEvents?.();
    stopEvents = store.deaf = null;
    for (const h of store.history.values()) h.at = NaN; // no rates over the time in which it did not look
  };
  document.addEventListener('visibilitychange', visible);
  visible();
  return { poll, slow };
}
