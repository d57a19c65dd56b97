// The first look: the tree with what its processes use, the listeners, the actors, the events.
import { byID, chip, clock, count, drawSpark, el, mark, near, percent, plural, put, rate, size, span, spark, sync } from './dom.js';
import { age, keyOf, last, listenerKey, store } from './store.js';
import { drawActors } from './actors.js';
import { drawCanaries, drawJobs, drawKeys } from './jobs.js';
import { alerts, reloads, severity, upgrade } from './alerts.js';
import { button } from './steer.js';

const folded = 20; // so many actors of one supervisor are shown in the tree

// flatten returns the rows of the tree, parents first, each with its depth and the process that it is.
export function flatten() {
  const rows = [], byKey = new Map(store.rows.map((r) => [keyOf(r), r]));
  const add = (node, path, depth) => {
    const at = depth === 0 ? '' : path ? `${path}/${node.name.split('/').at(-1)}` : node.name;
    const row = { node, path: at, depth, key: keyOf({ id: node.id, role: node.role, path: at }) };
    row.process = byKey.get(row.key);
    rows.push(row);
    let actors = 0;
    for (const c of node.children ?? []) {
      if (c.actor && ++actors > folded) continue;
      add(c, at, depth + 1);
    }
    if (actors > folded) rows.push({ key: at + ' more', more: actors - folded, depth: depth + 1 });
  };
  if (store.tree) add(store.tree, '', 0);
  return rows;
}

const draws = store.drawn = { first: true };

function treeRow(item) {
  if (item.more) {
    const text = el('th', { scope: 'row', colspan: '11', class: `dim d${item.depth}` });
    return { node: el('tr', {}, text), text };
  }
  const { node: n, key } = item, cell = (cls) => el('td', { class: cls });
  const name = item.depth === 0 ? 'master' : n.name;
  const title = n.pid || n.id ? el('a', { href: `#/${encodeURI(name)}` }, name) : el('span', {}, name);
  const role = el('span', { class: 'role' }), state = el('span');
  const row = {
    role, state, since: cell('wide dim'), pid: cell('wide n'), generation: cell('mid n'), starts: cell('mid n'),
    memory: el('span'), cpu: el('span'), open: cell('mid n'), rate: el('span'), sparks: [spark(), spark(), spark()],
  };
  row.act = el('td', { class: 'act' });
  row.node = el('tr', { class: draws.first ? '' : 'new', 'data-name': name, 'data-key': key },
    el('th', { scope: 'row', class: `d${Math.min(4, item.depth)}` }, title, role), el('td', {}, state), row.since, row.pid, row.generation, row.starts,
    el('td', { class: 'n' }, row.sparks[0], row.memory), el('td', { class: 'n' }, row.sparks[1], row.cpu), row.open,
    el('td', { class: 'n' }, row.sparks[2], row.rate), row.act);
  row.draw = () => drawTreeRow(row);
  return near(row);
}

function drawTreeRow(row) {
  const { node: n, process: p, key, path } = row.item;
  const budget = n.budget ? ` · ${n.budget - (n.used ?? 0)} of ${n.budget} restarts left` : '';
  const summary = n.actor?.summary ? ` · ${n.actor.kind ? n.actor.kind + ': ' : ''}${store.actors.find((a) => a.path === path)?.summary ?? n.actor.summary}` : '';
  const walls = n.sandbox ? ` · sandbox: ${n.sandbox}` : '';
  const size_ = n.role === 'pool' ? ` of ${plural((n.children ?? []).filter((c) => c.role === 'worker').length, 'worker')}` : '';
  put(row.role, n.role === 'worker' ? (n.last_exit ? `before: ${n.last_exit.slice(0, 60)}` : '') : ((n.role === n.name ? '' : n.role) + size_ + budget + walls + summary).replace(/^ · /, ''));
  const draining = n.role === 'draining';
  chip(row.state, p?.unwell ? 'unwell' : draining ? 'draining' : p?.state ?? n.state);
  put(row.since, n.since ? span(age(n.since)) : '');
  put(row.pid, n.pid || '');
  put(row.generation, n.generation || '');
  put(row.starts, n.incarnation || '');
  if (p) {
    const h = store.history.get(key) ?? {};
    put(row.memory, size(p.memory_bytes));
    put(row.cpu, percent(h.cpu?.at(-1)));
    const serves = n.role === 'worker' || draining;
    put(row.open, serves ? count(p.connections) : '');
    put(row.rate, serves ? rate(h.rate?.at(-1)) : '');
    [h.memory, h.cpu, serves ? h.rate : null].forEach((v, i) => { if (v) drawSpark(row.sparks[i], v, 60); });
  }
  row.sparks.forEach((s, i) => mark(s, 'class', p && (i < 2 || n.role === 'worker') ? 'spark' : 'spark hide'));
  const writes = `${n.role} ${store.about?.read_only}`;
  if (row.writes !== writes && store.about) {
    row.writes = writes;
    const name = n.name;
    if (n.role === 'pool') row.act.replaceChildren(button('scale', { pool: path }, `Scale ${path}`, () => (row.item.node.children ?? []).filter((c) => c.role === 'worker').length));
    else if (n.role === 'worker') row.act.replaceChildren(button('restart', { process: name }, `Restart ${name}`));
  }
}

function listenerRow(item) {
  const cell = (cls) => el('td', { class: cls });
  const row = {
    state: el('span'), accepted: cell('n'), rate: el('span'), spark: spark(), claimed: cell('mid n'), waiting: cell('n'), lost: cell('mid n'),
    meter: el('meter', { min: '0', max: '1', low: '0.7', high: '0.9', optimum: '1', 'aria-label': 'Balance' }), even: el('span'), act: cell('act'),
  };
  const name = item.name || item.address;
  row.node = el('tr', { 'data-name': name }, el('th', { scope: 'row' }, name, el('span', { class: 'role' }, item.name ? `${item.network} ${item.address}` : item.network)),
    el('td', {}, row.state), el('td', { class: 'wide' }, item.policy), row.accepted, el('td', { class: 'n' }, row.spark, row.rate), row.claimed, row.waiting, row.lost,
    el('td', {}, row.meter, ' ', row.even), row.act);
  return row;
}

// balance is Jain's index over what the workers have claimed since they are these; null while that is
// too little to tell: a replacement has served nothing yet.
function balance(row, workers = []) {
  const ids = workers.map((w) => w.id).join(), share = (w, i) => w.claimed - row.base[i];
  if (row.ids !== ids || workers.map(share).some((n) => n < 0)) Object.assign(row, { ids, base: workers.map((w) => w.claimed) });
  const shares = workers.map(share), sum = shares.reduce((a, n) => a + n, 0);
  return sum > 0 && sum >= 10 * shares.length ? sum * sum / (shares.length * shares.reduce((a, n) => a + n * n, 0)) : null;
}

function drawListener(row, l) {
  const c = l.counts, h = store.history.get(listenerKey(l)) ?? {};
  chip(row.state, l.refuses ? 'refuses' : l.paused ? 'paused' : 'open');
  put(row.accepted, count(c?.accepted));
  put(row.rate, rate(h.rate?.at(-1)));
  if (h.rate) drawSpark(row.spark, h.rate, 60);
  put(row.claimed, count(c?.claimed));
  put(row.waiting, c ? c.waiting + (c.queue_age_seconds > 0.1 ? ` (${span(c.queue_age_seconds)})` : '') + (c.parked ? ` + ${c.parked} parked` : '') : '');
  put(row.lost, c ? count(c.turned_away + c.reset + c.dropped + c.errors) : '');
  const even = c && balance(row, l.workers);
  row.meter.hidden = even == null;
  row.meter.value = even ?? 0;
  put(row.even, !c ? 'not counted' : even == null ? 'too few yet' : `${(even * 100).toFixed(0)} %`);
  const act = (store.about?.read_only ? 'no ' : '') + (l.paused ? 'resume' : 'pause');
  if (row.shownAct !== act && store.about && l.name) {
    row.shownAct = act;
    const what = l.paused ? 'resume' : 'pause', focused = row.act.contains(document.activeElement);
    row.act.replaceChildren(button(what, { listener: l.name }, `${l.paused ? 'Resume' : 'Pause'} ${l.name}`));
    if (focused) row.act.querySelector('button')?.focus();
  }
}

// drawFound shows the actors of the master that are looked for.
export function drawFound() {
  const find = byID('actors-find').value;
  drawActors(byID('actors'), store.actors.filter((a) => a.path.includes(find)), byID('actors-count'));
}

export function drawEvents() {
  sync(byID('events'), store.events.slice(-300).reverse(), (ev) => ev.cursor, (ev) => ({
    node: el('li', { class: severity(ev) }, el('time', { datetime: ev.time }, clock(ev.time)), el('span', {}, (ev.lost ? `(${ev.lost} events are lost) ` : '') + ev.text)),
  }));
}

// upgradeText says how far an upgrade is; reload, how far the reload of it is.
function upgradeText(u, reload) {
  if (u.end) return u.ev.error ? `It failed, and the old program serves on: ${u.ev.error}` : `The new program is there, ${span(u.ev.took_seconds)} after its exec.`;
  return reload ? 'The new program has taken over. ' + reload : store.deaf ? 'The new program takes over.' : 'The new program is checked, and takes over when nothing is under way.';
}

function drawProgress() {
  let r = reloads(), u = upgrade();
  if (u && (u.old || u.end && r?.begin.cursor > u.ev.cursor)) u = null;
  if (r && (r.old || u && !u.end && r.begin.cursor < u.ev.cursor)) r = null;
  byID('progress').hidden = !r && !u;
  if (!r && !u) return;
  put(byID('progress-title'), u ? 'Upgrade' : 'Reload');
  const slots = r?.slots ?? [], ready = slots.filter((s) => s.state === 'ready' || s.state === 'done').length;
  const bar = byID('progress-bar'), last = u?.end ? u.ev : r?.end;
  [bar.max, bar.value] = [Math.max(1, slots.length), last && !last.error ? Math.max(1, slots.length) : ready];
  const text = !r ? '' : !r.end ? `To generation ${r.begin.generation}: ${ready} of ${plural(slots.length, 'worker')} replaced.`
    : r.end.error ? `It failed and went back: ${r.end.error}` : `Generation ${r.end.generation} is there, after ${span(r.end.took_seconds)}.`;
  put(byID('progress-text'), u ? upgradeText(u, text) : text);
  sync(byID('progress-slots'), slots, (s) => s.name, (s) => {
    const state = el('span');
    return { node: el('li', {}, s.name + ' ', state), state };
  }, (row, s) => {
    chip(row.state, s.state);
    put(row.state, s.took ? `ready in ${span(s.took)}` : s.state);
  });
}

export function drawAlerts() {
  sync(byID('alerts'), alerts(), (a) => a.key, () => ({ node: el('p') }), (row, a) => {
    mark(row.node, 'class', 'alert' + (a.bad ? ' bad' : ''));
    put(row.node, a.text);
  });
}

export function drawOverview() {
  const rows = flatten();
  sync(byID('tree').tBodies[0], rows, (r) => r.key, treeRow, (row, item) => {
    row.item = item;
    if (row.text) put(row.text, `and ${count(item.more)} more actors`);
    else if (row.seen) drawTreeRow(row);
  });
  if (rows.length) draws.first = false;
  sync(byID('listeners').tBodies[0], store.listeners, listenerKey, listenerRow, drawListener);
  store.hasActors = rows.some((r) => r.node?.actor);
  byID('actors-part').hidden = !store.hasActors;
  if (store.hasActors) drawFound();
  drawJobs();
  drawKeys();
  drawCanaries(rows);
  drawProgress();
}
