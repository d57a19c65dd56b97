// The page of docs/control.md: it draws what store.js learns.
import { byID, clock, el, put, span } from './dom.js';
import { age, store, watch } from './store.js';
import { drawAlerts, drawEvents, drawFound, drawOverview } from './overview.js';
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
      byID('acts').replaceChildren(button('reload', {}, 'Reload the tree'), ' ', button('upgrade', { detach: 1 }, 'Upgrade the program'));
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
  const [why] = store.failed.values(), deaf = store.deaf && Date.now() - store.deaf > 5000;
  const old = why || Date.now() - store.fresh > 15_000 || deaf;
  document.body.classList.toggle('old', !!old);
  byID('link').className = old ? 'old' : '';
  put(byID('link'), !old ? (store.about ? 'live' : 'connecting') : !store.about ? `No data: ${why ?? 'no answer'}. It is asked again.`
    : why || !deaf ? `Old data, of ${clock(store.fresh)}: ${why ?? 'no answer'}. It is asked again.` : `No events since ${clock(store.deaf)}. They are asked for again.`);
}

function route() {
  if (location.hash === '#main') return; // the link that skips the head
  let name = location.hash.replace(/^#\/?/, '');
  try { name = decodeURI(name); } catch { /* it is what a user has typed */ }
  show(name || null);
  draw();
}

wireDialog();
byID('faults').addEventListener('change', (e) => byID('events').classList.toggle('faults', e.target.checked));
byID('actors-find').addEventListener('input', drawFound);
addEventListener('hashchange', route);
route();
setInterval(() => { if (!document.hidden) age_(); }, 1000);
watch(draw);
