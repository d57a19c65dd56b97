// The page of docs/control.md: it draws what store.js learns.
import { byID, clock, el, put, span } from './dom.js';
import { age, store, watch } from './store.js';
import { drawActors, drawAlerts, drawEvents, drawOverview } from './overview.js';
import { drawProcess, show } from './process.js';
import { button, wireDialog } from './steer.js';

let due = false, drawnEvents, drawnActs;

function draw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => { due = false; paint(); });
}

function paint() {
  const a = store.about;
  if (a) {
    put(byID('program'), a.program);
    document.title = `${a.program} · Coppice`;
    put(byID('facts'), `pid ${a.pid} · generation ${a.generation} · up ${span(age(a.started))}${a.read_only ? ' · read-only' : ''}`);
    if (drawnActs !== a.read_only) {
      drawnActs = a.read_only;
      byID('acts').replaceChildren(button('reload', {}, 'Reload the tree'));
      if (!a.read_only) byID('acts').append(' ', el('a', { class: 'button', href: 'v1/bundle', download: `${a.program}.tar` }, 'Bundle'));
    }
  }
  age_();
  drawAlerts();
  if (!byID('overview').hidden) drawOverview();
  drawProcess();
  const newest = store.events.at(-1)?.cursor;
  if (newest !== drawnEvents) {
    drawnEvents = newest;
    drawEvents();
  }
}

// age_ says how old what is shown is.
function age_() {
  const old = store.failed !== '' || Date.now() - store.fresh > 15_000;
  document.body.classList.toggle('old', old);
  byID('link').className = old ? 'old' : '';
  put(byID('link'), !old ? (store.about ? 'live' : 'connecting') : store.about
    ? `Old data, of ${clock(store.fresh)}: ${store.failed || 'no answer'}. It is asked again.` : `No data: ${store.failed}. It is asked again.`);
}

function route() {
  if (location.hash === '#main') return; // the link that skips the head
  const name = decodeURI(location.hash.replace(/^#\/?/, ''));
  show(name || null);
  draw();
}

wireDialog();
byID('faults').addEventListener('change', (e) => byID('events').classList.toggle('faults', e.target.checked));
byID('actors-find').addEventListener('input', (e) => drawActors(byID('actors'), e.target.value, byID('actors-count')));
addEventListener('hashchange', route);
route();
setInterval(() => { if (!document.hidden) age_(); }, 1000);
watch(draw);
