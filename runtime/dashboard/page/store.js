// What the page knows of the tree, and how it learns it.

export const points = 180; // seconds of history that are kept

export const store = {
  about: null, // of /v1/
  tree: null,
  rows: [], // of /v1/workers
  listeners: [],
  actors: [],
  events: [], // the latest, oldest first
  history: new Map(), // of a process or listener: {memory, cpu, rate, …}
  failed: '', // why the last request failed
  fresh: Date.now(), // when something came last
  skew: 0, // the tree's clock minus ours, ms
};

// now is the time of the tree's clock.
export const now = () => Date.now() + store.skew;

export const age = (time) => (now() - Date.parse(time)) / 1000;

// ask returns the answer to a request: JSON, or a text. An error has the words of the answer.
export async function ask(path, { method = 'GET', signal = AbortSignal.timeout(10_000) } = {}) {
  let resp;
  try {
    resp = await fetch('v1/' + path, { method, signal, cache: 'no-store' });
  } catch (e) {
    throw new Error(e.name === 'TimeoutError' ? 'no answer within 10 s' : e.name === 'AbortError' ? 'cancelled' : 'the tree does not answer');
  }
  const date = Date.parse(resp.headers.get('Date'));
  if (Math.abs(date - Date.now() - store.skew) > 2000) store.skew = date - Date.now(); // Date has whole seconds
  const kind = resp.headers.get('Content-Type') ?? '';
  const answer = kind.includes('json') ? await resp.json() : await resp.text();
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

function takeWorkers(rows, at) {
  store.rows = rows;
  const seen = new Set();
  for (const r of rows) {
    const key = keyOf(r);
    seen.add(key);
    remember(key, at, { cpu: 100 * (r.cpu_seconds ?? 0), rate: r.connections_claimed }, { memory: r.memory_bytes, open: r.connections });
    const h = store.history.get(key);
    if (r.last_beat && r.last_beat !== h.beat) {
      if (h.beat) h.gap = Math.max(h.gap ?? 0, (Date.parse(r.last_beat) - Date.parse(h.beat)) / 1000);
      h.beat = r.last_beat;
    }
  }
  for (const key of store.history.keys()) if (!key.startsWith('listener ') && !seen.has(key)) store.history.delete(key);
}

export const listenerKey = (l) => `listener ${l.name ?? ''} ${l.network} ${l.address}`;

function takeListeners(list, at) {
  store.listeners = list;
  for (const l of list) if (l.counts) remember(listenerKey(l), at, { rate: l.counts.accepted }, { waiting: l.counts.waiting });
}

// last returns the newest value of a history.
export const last = (key, name) => store.history.get(key)?.[name]?.at(-1);

// follow reads a stream until stop is called, again after each break, and misses nothing that is kept.
export function follow(path, kind, after, take, opened = () => {}) {
  let source, timer, cursor = after, stopped = false;
  const open = () => {
    source = new EventSource(`v1/${path}${path.includes('?') ? '&' : '?'}follow=1&after=${cursor}`);
    source.addEventListener('open', opened);
    source.addEventListener(kind, (e) => {
      const v = JSON.parse(e.data);
      cursor = v.cursor;
      take(v);
    });
    source.addEventListener('error', () => { // the browser's own repetition would ask with the old cursor
      source.close();
      if (!stopped) timer = setTimeout(open, 1000);
    });
  };
  open();
  return () => {
    stopped = true;
    clearTimeout(timer);
    source.close();
    return cursor;
  };
}

// watch keeps the store up to date while the page is visible, and calls draw after each change.
export function watch(draw) {
  let timer, treeTimer, fetching = false, stale = false, stopEvents, cursor, wanted = 0;

  const failed = (e) => { store.failed = e.message; draw(); };

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
      draw();
    } catch (e) { failed(e); }
    fetching = false;
    if (stale) treeSoon(200 + 5 * (performance.now() - began));
  };
  const treeSoon = (ms = 50) => { treeTimer ??= setTimeout(tree, ms); };

  const taken = (ev) => {
    cursor = ev.cursor;
    store.events.push(ev);
    if (store.events.length > 600) store.events.splice(0, 100);
    if (ev.kind === 'tree reloaded' || ev.kind === 'asked by an operator') about().catch(failed);
    treeSoon();
    draw();
  };

  const poll = async () => {
    clearTimeout(timer);
    const mine = ++wanted, began = performance.now();
    let pause = 1000;
    try {
      const asked = [ask('workers'), ask('listeners'), store.hasActors ? ask('actors') : []];
      if (!store.about || store.failed) { asked.push(about()); treeSoon(0); }
      const [rows, listeners, actors] = await Promise.all(asked);
      const at = performance.now();
      takeWorkers(rows, at);
      takeListeners(listeners, at);
      store.actors = actors;
      if (wanted !== mine) return;
      [store.failed, store.fresh] = ['', Date.now()];
      if (!stopEvents) {
        cursor ??= Math.max(0, store.about.cursor - 300);
        stopEvents = follow('events', 'event', cursor, taken);
      }
      pause = Math.min(10_000, Math.max(1000 - (at - began), 9 * (at - began))); // a large tree is asked less often
      draw();
    } catch (e) { failed(e); }
    if (wanted === mine) timer = setTimeout(poll, pause);
  };

  const slow = setInterval(() => { if (!document.hidden) treeSoon(); }, 10_000);

  const visible = () => {
    if (!document.hidden) { poll(); treeSoon(0); return; }
    wanted++; // what is under way does not go on
    clearTimeout(timer);
    stopEvents?.();
    stopEvents = null;
    for (const h of store.history.values()) h.at = NaN; // no rates over the time in which it did not look
  };
  document.addEventListener('visibilitychange', visible);
  visible();
  return { poll, slow };
}
