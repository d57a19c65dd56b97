// The view of one process: what it uses, its ends, its lines, its stacks and profiles.
import { byID, chip, clock, count, drawSpark, el, percent, put, rate, size, span, spark, sync } from './dom.js';
import { age, ask, follow, keyOf, points, store } from './store.js';
import { actorsOf } from './actors.js';
import { subject } from './alerts.js';
import { button, say } from './steer.js';

const maxLines = 1000;
let view = null;

// find returns the row of a process by its name; of two in a reload, the newer.
const find = (name) => store.rows.filter((r) => r.name === name).sort((a, b) => (b.id ?? 0) - (a.id ?? 0))[0];

// show opens the view of a process; null closes it.
export function show(name) {
  if (view?.name === name) return;
  view?.stop?.();
  view = null;
  const place = byID('process');
  place.hidden = name == null;
  byID('overview').hidden = name != null;
  place.replaceChildren();
  if (name == null) return;
  view = { name, facts: el('dl'), state: el('span'), charts: {}, ends: el('div'), none: el('p', { class: 'dim' }, 'None is kept.'), acts: el('div', { class: 'buttons' }), lines: el('pre', { tabindex: '0', role: 'log', 'aria-live': 'off', 'aria-label': `Lines of ${name}` }), out: el('div'), actors: actorsOf(name), seen: 0 };
  const charts = el('div', { class: 'charts' });
  for (const [key, title] of [['memory', 'Memory'], ['cpu', 'CPU'], ['requests', 'Requests/s'], ['rate', 'Connections/s'], ['open', 'Open connections']]) {
    const c = view.charts[key] = { value: el('b'), most: el('span', { class: 'dim' }), line: spark() };
    charts.append(el('figure', {}, el('figcaption', {}, title + ' ', c.value, ' ', c.most), c.line));
  }
  place.append(el('p', {}, el('a', { href: '#/' }, '← the tree')), el('h2', { tabindex: '-1', id: 'process-title' }, name + ' ', view.state), view.acts, view.facts, charts,
    view.out, el('section', {}, el('h3', {}, 'Ends with a crash report'), view.none, view.ends), el('section', {}, el('h3', {}, name === 'master' ? 'Lines of all processes' : 'Lines'), view.lines), view.actors.node); // what comes late moves nothing
  byID('process-title').focus();
  visible();
}

// visible follows the lines while the page is seen.
function visible() {
  if (!view) return;
  if (document.hidden) {
    view.after = view.stop?.();
    view.stop = null;
    return;
  }
  const mine = view;
  let pending = [], skipped = 0;
  mine.stop ??= follow('logs' + (mine.name === 'master' ? '' : `?process=${encodeURIComponent(mine.name)}`), 'line', mine.after ?? 0, (line) => {
    if (!pending.length) requestAnimationFrame(flush);
    pending.push(line);
    if (pending.length > maxLines) { pending.shift(); skipped++; }
  });
  const flush = () => {
    const pre = mine.lines, below = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 30;
    if (skipped) pre.append(el('span', { class: 'line' }, `(${skipped} lines came too fast to be shown)`));
    pre.append(...pending.map((l) => el('span', { class: `line ${l.stream === 'stderr' ? 'stderr' : ''}` },
      (l.lost ? `(${l.lost} lines are lost) ` : '') + `${clock(l.time)} ${mine.name === 'master' ? l.name + ' ' : ''}${l.text}`)));
    [pending, skipped] = [[], 0];
    while (pre.childElementCount > maxLines) pre.firstElementChild.remove();
    if (below) pre.scrollTop = pre.scrollHeight;
  };
  readEnds(mine);
}
document.addEventListener('visibilitychange', visible);

function endOf(r) {
  const facts = el('dl'), fact = (name, v) => { if (v != null && v !== '') facts.append(el('div', {}, el('dt', {}, name), el('dd', {}, String(v)))); };
  fact('Life', `${span(r.uptime_seconds)}${r.ready ? '' : ', it was never ready'}`);
  fact('Incarnation', r.incarnation);
  fact('pid', r.exit?.pid);
  fact('Signal', r.exit?.signal);
  fact('Exit code', r.exit?.code);
  fact('Killed', r.exit?.killed);
  fact('Most memory', r.exit && size(r.exit.max_rss_bytes));
  fact('Connections that it had', r.held?.map((h) => `${h.listener}: ${h.open}`).join(', '));
  fact('Asked for', r.asked?.join(', '));
  fact('Cgroup', r.cgroup);
  fact('Core dump', r.core);
  fact('Build', r.build);
  const was = r.usage?.at(-1);
  fact('Memory before', was && `${size(was.memory_bytes)} ${span((new Date(r.time) - new Date(was.time)) / 1000)} before`);
  fact('Traces', r.traces?.join(', '));
  const body = [facts];
  if (r.exit?.words) body.push(el('p', {}, 'Last words: ', el('b', {}, r.exit.words)));
  if (r.lines?.length) body.push(el('p', {}, 'Last lines'), el('pre', { tabindex: '0' }, r.lines.map((l) => `${clock(l.time)} ${l.text}`).join('\n')));
  if (r.dump) body.push(el('p', {}, 'Stack'), el('pre', { tabindex: '0' }, r.dump));
  body.push(el('p', {}, el('a', { href: `v1/crashes/text?number=${r.number}` }, 'The whole report, with the events around it')));
  return el('details', {}, el('summary', {}, `${clock(r.time)} ${r.name}: ${r.reason.text}`), ...body);
}

async function readEnds(mine) {
  try {
    const all = (await ask('crashes')).filter((r) => mine.name === 'master' || r.name === mine.name);
    mine.none.hidden = all.length > 0;
    sync(mine.ends, all, (r) => `${r.time} ${r.id}`, (r) => ({ node: endOf(r) }));
  } catch (e) { say(`The crash reports: ${e.message}`); }
}

async function stacks(mine) {
  const place = mine.out, head = (text) => el('h3', {}, text);
  place.replaceChildren(head('Stacks: asked for…'));
  try {
    const text = await ask(`stacks?process=${encodeURIComponent(mine.name)}`, { seconds: 15, text: true }); // the endpoint waits 10 s
    place.replaceChildren(head(`Stacks at ${clock(Date.now())}`), el('pre', { tabindex: '0' }, text));
  } catch (e) { place.replaceChildren(head(`No stacks: ${e.message}`)); }
}

export function drawProcess() {
  if (!view) return;
  view.actors.refresh();
  const r = find(view.name), h = r && store.history.get(keyOf(r));
  chip(view.state, r ? (r.unwell ? 'unwell' : r.state) : 'down');
  if (store.about && view.writes !== store.about.read_only) {
    view.writes = store.about.read_only;
    const mine = view, { name } = view, q = encodeURIComponent(name);
    view.acts.replaceChildren(el('button', { type: 'button', click: () => stacks(mine) }, 'Stacks'));
    if (!view.writes) {
      for (const [path, label] of [['profile?seconds=5&', 'CPU profile, 5 s'], ['heap?', 'Heap'], ['goroutine?', 'Goroutines'], ['mutex?', 'Mutexes']]) {
        const file = `${name.replaceAll('/', '-')}-${path.split('?')[0]}.pprof`;
        view.acts.append(el('a', { class: 'button', href: `v1/pprof/${path}process=${q}`, download: file }, label));
      }
      if (name !== 'master') for (const what of ['restart', 'stop', 'kill']) view.acts.append(button(what, { process: name }, `${what} ${name}`));
    }
  }
  if (h) {
    for (const [key, show] of [['memory', size], ['cpu', percent], ['requests', rate], ['rate', rate], ['open', count]]) {
      put(view.charts[key].value, show(h[key]?.at(-1)));
      if (!h[key]) continue;
      put(view.charts[key].most, `most ${show(Math.max(...h[key]))}`);
      drawSpark(view.charts[key].line, h[key], points);
    }
  }
  const facts = r ? { pid: r.pid, Role: r.role, Pool: r.pool, Generation: r.generation, Starts: r.incarnation, Since: r.since && span(age(r.since)), 'Open files': r.files, 'CPU time': r.cpu_seconds && span(r.cpu_seconds), 'Last heartbeat': r.last_beat && `${span(Math.max(0, age(r.last_beat)))} ago`, 'What is wrong': r.unwell, Cgroup: r.cgroup, Limits: r.limits, 'Last end': r.last_exit } : {};
  if (view.name === 'master' && store.about) Object.assign(facts, { Module: store.about.module, Revision: store.about.revision, Go: store.about.go, Coppice: store.about.coppice, Log: store.about.log_level });
  for (const [name, value] of Object.entries(facts)) {
    if (value == null || value === '') continue;
    view.factOf ??= {};
    const dd = view.factOf[name] ??= (() => {
      const d = el('dd');
      view.facts.append(el('div', {}, el('dt', {}, name), d));
      return d;
    })();
    put(dd, value);
  }
  const newest = store.events.findLast((ev) => ['exited', 'failed', 'start failed'].includes(ev.kind) && (view.name === 'master' || subject(ev) === view.name));
  if (newest && newest.cursor > view.seen) {
    view.seen = newest.cursor;
    readEnds(view);
  }
}
