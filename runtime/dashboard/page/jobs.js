// The pools of jobs: what waits, what each worker runs, and the keys that are quarantined.
import { byID, count, el, put, span, sync } from './dom.js';
import { button } from './steer.js';
import { store } from './store.js';

// fill makes the rows of a table, with texts(item) in its cells and act(item) at the end; it is hidden
// while it has none.
function fill(id, items, key, texts, act) {
  const table = byID(id), heads = table.tHead.rows[0].cells;
  table.parentElement.hidden = items.length === 0;
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
  fill('keys', of(quarantined).slice(0, 100), (k) => `${k.pool} ${k.key}`, (k) => [k.pool, k.key, k.deaths, k.refused, span(k.probe_seconds), k.reason],
    (k) => button('actors/operate', { actor: k.pool + '/queue', do: 'release', what: k.key }, `Release ${k.key}`));
}
