// The actors of a process: the first look has those of the master, the view of a process its own.
import { chip, clock, count, el, put, span, sync } from './dom.js';
import { ask } from './store.js';

const most = 100;

// drawActors shows those with the longest queues. acts(actor) makes what a row has at its end.
export function drawActors(table, all, note, acts) {
  const shown = all.toSorted((a, b) => b.queue - a.queue || b.failures - a.failures).slice(0, most);
  put(note, `${count(all.length)}${all.length > most ? `: the ${most} with the longest queues` : ''}`);
  sync(table.tBodies[0], shown, (a) => a.path, (a) => {
    const cells = ['', 'n', 'mid n', 'n', 'mid n'].map((c) => el('td', { class: c })), state = el('span');
    cells[0].append(state);
    return { node: el('tr', { 'data-name': a.path }, el('th', { scope: 'row' }, a.path), ...cells, ...(acts ? [el('td', { class: 'act' }, ...acts(a))] : [])), cells, state };
  }, (row, a) => {
    chip(row.state, a.state);
    [a.queue, a.oldest_seconds ? span(a.oldest_seconds) : '', count(a.processed), count(a.failures)].forEach((v, i) => put(row.cells[i + 1], v));
  });
}

const counts = (list) => list.length === 0 ? el('p', {}, 'It has handled none.') : el('table', {},
  el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, 'Type'), el('th', { scope: 'col', class: 'n' }, 'Messages'), el('th', { scope: 'col', class: 'n' }, 'Last'))),
  el('tbody', {}, ...list.map((m) => el('tr', {}, el('th', { scope: 'row' }, m.type), el('td', { class: 'n' }, count(m.count)), el('td', { class: 'n' }, clock(m.last))))));

// actorsOf returns {node, refresh} for the actors of a process, with their states and messages on
// request. It is hidden while there are none.
export function actorsOf(process) {
  const q = process === 'master' ? '' : `process=${encodeURIComponent(process)}&`;
  const head = [['', 'Path'], ['', 'State'], ['n', 'Queue'], ['mid n', 'Oldest'], ['n', 'Processed'], ['mid n', 'Failures']].map(([c, t]) => el('th', { scope: 'col', class: c }, t));
  const table = el('table', {}, el('thead', {}, el('tr', {}, ...head, el('th', { scope: 'col', class: 'act' }, el('span', { class: 'hide' }, 'Actions')))), el('tbody'));
  const note = el('span', { class: 'dim' }), out = el('div', { role: 'status' });
  const node = el('section', { id: 'process-actors', hidden: true }, el('h3', {}, 'Actors ', note),
    el('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': `Actors of ${process}` }, table), out);
  let next = 0, latest;
  const button = (label, what, path, show) => el('button', { type: 'button', 'aria-label': what, click: async () => {
    const mine = latest = {}, say = (...parts) => { if (latest === mine) out.replaceChildren(...parts); };
    say(el('h3', {}, `${what}: asked for…`));
    try {
      const answer = await ask(path, { seconds: 20 });
      say(el('h3', {}, `${what}, at ${clock(Date.now())}`), show(answer));
    } catch (e) { say(el('h3', {}, `${what}: ${e.message}`)); }
  } }, label);
  const acts = (a) => [
    button('State', `State of ${a.path}`, `actors/state?${q}actor=${encodeURIComponent(a.path)}`, (s) => el('pre', { tabindex: '0' }, s.state)),
    button('Messages', `Messages of ${a.path} in 5 s`, `actors/messages?${q}seconds=5&actor=${encodeURIComponent(a.path)}`, counts),
  ];
  const refresh = async () => {
    if (Date.now() < next) return;
    next = Infinity;
    try {
      const all = await ask(`actors?${q}`);
      node.hidden = all.length === 0;
      drawActors(table, all, note, acts);
    } catch (e) { put(note, e.message); }
    next = Date.now() + 5000;
  };
  return { node, refresh };
}
