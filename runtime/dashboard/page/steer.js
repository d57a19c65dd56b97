// What changes the tree: each asks first.
import { byID, el, put, span } from './dom.js';
import { ask, store } from './store.js';

const missing = new Set(); // what this tree's endpoint does not have

export const may = (what) => store.about != null && !store.about.read_only && !missing.has(what);

const words = { reload: 'Reload', upgrade: 'Upgrade', scale: 'Scale', pause: 'Pause', resume: 'Resume', restart: 'Restart', stop: 'Stop', kill: 'Kill', release: 'Release', forget: 'Forget', promote: 'Promote', abort: 'Abort' };

const acts = {
  reload: { title: () => 'Reload the tree?', text: () => 'Each worker is replaced by one of a new generation, pool by pool; connections are drained. The reload goes back if this page is closed before it is over.', yes: 'Reload' },
  upgrade: {
    title: () => 'Upgrade the program?', yes: 'Upgrade',
    text: async () => {
      const { plan } = await ask('upgrade/check', { method: 'POST', seconds: 15 });
      return ['The program that is now at its path takes over, the master included; then each worker is replaced. What changes:', ...(plan.length ? plan : ['nothing but the program'])].join('\n');
    },
  },
  scale: { title: (x) => `Scale ${x.pool}`, text: () => 'Workers are started, or drained and stopped, until the pool has this size.', yes: 'Scale', size: true },
  'actors/operate': { title: (x) => `${words[x.do]} ${x.what}?`, text: () => 'What has this key is served again. If that kills workers, it is quarantined again.', yes: 'Yes' },
  canary: { title: (x) => `${words[x.do]} the new generation?`, text: (x) => (x.do === 'promote' ? 'All slots get it.' : 'The reload goes back to the old one.'), yes: 'Yes' },
  pause: { title: (x) => `Pause ${x.listener}?`, text: () => 'New connections wait in the kernel until it is resumed; those that are open go on.', yes: 'Pause' },
  resume: { title: (x) => `Resume ${x.listener}?`, text: () => 'Its workers get connections again.', yes: 'Resume' },
  restart: { title: (x) => `Restart ${x.process}?`, text: () => 'A new one takes its place; it finishes its work and ends.', yes: 'Restart' },
  stop: { title: (x) => `Stop ${x.process}?`, text: () => 'It is asked to finish its work and end. Its supervisor decides what comes after.', yes: 'Stop' },
  kill: { title: (x) => `Kill ${x.process}?`, text: () => 'It ends at once, and its open connections with it. Its supervisor decides what comes after.', yes: 'Kill' },
};

export function say(text) {
  const p = el('p', {}, text);
  byID('said').replaceChildren(p);
  setTimeout(() => p.remove(), 10_000);
}

let closed = Promise.resolve(); // the dialog's event of that name, which comes some time after it has closed

// steer asks whether what is really meant, and does it.
export async function steer(what, params, size) {
  const act = acts[what], dialog = byID('ask'), field = byID('ask-size');
  let text;
  try { text = await act.text(params); } catch (e) { say(`${act.title(params)} ${e.message}`); return; }
  do await closed; while (dialog.open); // another may have asked meanwhile
  put(byID('ask-title'), act.title(params));
  put(byID('ask-text'), text);
  put(byID('ask-yes'), act.yes);
  byID('ask-field').hidden = !act.size;
  field.value = size ?? '';
  dialog.returnValue = '';
  dialog.showModal();
  closed = new Promise((over) => dialog.addEventListener('close', over, { once: true }));
  await closed;
  if (dialog.returnValue !== 'yes') return;
  await perform(what, act.size ? { ...params, size: field.value } : params, act.title(params).replace('?', ''));
}

let running = 0;
addEventListener('beforeunload', (e) => { if (running) e.preventDefault(); }); // what runs would be cancelled

async function perform(what, params, title) {
  const cancel = new AbortController();
  const stop = el('button', { type: 'button', click: () => cancel.abort() }, `Cancel: ${title}`);
  byID('acts').append(stop);
  running++;
  try {
    const done = await ask(`${what}?${new URLSearchParams(params)}`, { method: 'POST', signal: cancel.signal });
    say(params.detach ? `${title}: it is under way.` : `${title}: done in ${span(done.took_seconds)}.`);
  } catch (e) {
    if (e.status === 404 && e.message.includes('no such path')) {
      missing.add(what);
      document.querySelectorAll(`[data-act="${what}"]`).forEach((b) => b.remove());
    }
    say(`${title}: ${e.message}`);
  }
  running--;
  stop.remove();
}

export function wireDialog() {
  const dialog = byID('ask');
  byID('ask-yes').addEventListener('click', () => dialog.close('yes'));
  byID('ask-no').addEventListener('click', () => dialog.close(''));
  byID('ask-size').addEventListener('keydown', (e) => { if (e.key === 'Enter') dialog.close('yes'); });
}

// button makes one that steers; nothing if this tree may not be steered so. size returns the size that
// the dialog begins with.
export function button(what, params, label, size = () => undefined) {
  if (!may(what)) return '';
  return el('button', { type: 'button', 'data-act': what, 'aria-label': label, click: () => steer(what, params, size()) }, words[params.do ?? what] + '…');
}
