// The pools of jobs: what waits, and what each worker runs; the keys that are quarantined, there and for
// requests; and the generations that are judged.
import { byID, count, el, put, span, sync } from './dom.js';
import { button } from './steer.js';
import { store } from './store.js';

// fill makes the rows of a table, with texts(item) in its cells and act(item) at the end; it is hidden
// while it has none.
function fill(id, items, key, texts, act) {
  const table = byID(id), heads = table.tHead.rows[0].cells;
  const part = table.parentElement;
  (part.parentElement.id === 'jobs-part' ? part : part.parentElement).hidden = items.length === 0;
  sync(table.tBodies[0], items, key, (item) => {
    const cells = texts(item).map((_, i) => el(i ? 'td' : 'th', { class: heads[i].className, scope: i ? null : 'row' }));
    return { node: el('tr', { 'data-name': key(item) }, ...cells, act ? el('td', { class: 'act' }, act(item)) : ''), cells };
  }, (row, item) => texts(item).forEach((v, i) => put(row.cells[i], v)));
}

export const quarantined = (pool) => (pool.quarantine ?? []).filter((k) => !k.released);

export function drawJobs() {
  const pools = store.jobs;
  byID('jobs-part').hidden = pools.length === 0;
  if (pools.length === 0) return;
  fill('jobs', pools, (p) => p.pool, (p) => [
    p.pool, p.waiting + (p.waiting ? ` (${span(p.oldest_seconds)})` : ''), p.running, p.workers, p.reruns, quarantined(p).length || '',
    Object.entries(p.ends).map(([end, n]) => `${end} ${count(n)}`).join(', '),
  ]);
  const of = (list) => pools.flatMap((p) => list(p).map((v) => ({ ...v, pool: p.pool })));
  fill('runs', of((p) => p.runs ?? []).slice(0, 100), (r) => `${r.worker} ${r.function} ${r.key} ${r.run}`, (r) => [r.worker, r.function, span(r.for_seconds), r.run, r.key ?? '', r.progress ?? '']);
}

export function drawKeys() {
  const keys = store.quarantines.flatMap((p) => quarantined(p).map((k) => ({ ...k, pool: p.pool, actor: p.actor })));
  const act = (k, what, label) => button('actors/operate', { actor: k.actor, do: what, what: k.key }, `${label} ${k.key}`);
  fill('keys', keys.slice(0, 100), (k) => `${k.pool} ${k.key}`, (k) => [k.pool, k.key, k.deaths, k.refused, span(k.since_seconds), span(k.probe_seconds), k.reason],
    (k) => el('div', { class: 'buttons' }, act(k, 'release', 'Release'), act(k, 'forget', 'Forget')));
}

// drawCanaries shows which of the tree's rows are judged.
export function drawCanaries(rows) {
  fill('canaries', rows.filter((r) => r.node?.canary), (r) => r.path, (r) => [r.path, r.node.canary],
    () => el('div', { class: 'buttons' }, button('canary', { do: 'promote' }, 'Promote the new generation'), button('canary', { do: 'abort' }, 'Abort the new generation')));
}
