// What the other files draw with. A text from the tree becomes a text node, never markup.

// el makes an element: attributes, or listeners where the value is a function, then children.
export function el(tag, attrs = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs)) {
    if (typeof value === 'function') node.addEventListener(name, value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children);
  return node;
}

export const byID = (id) => document.getElementById(id);

// put sets the text of a node if it is another.
export function put(node, text) {
  text = String(text);
  if (node.shown === text) return;
  node.shown = text;
  node.textContent = text;
}

export function mark(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

export function chip(node, state) {
  put(node, state);
  mark(node, 'class', 'chip ' + state);
}

// sync makes the children of parent those of items, in their order. make(item) returns {node, …} for a
// new one; update(row, item) is called for each. What stays is not touched, so that it keeps the focus.
export function sync(parent, items, key, make, update = () => {}) {
  const had = parent.keyed ?? new Map(), now = new Map();
  const keys = new Set(items.map(key));
  for (const [k, row] of had) if (!keys.has(k)) row.node.remove();
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = key(item), row = had.get(k) ?? make(item);
    if (row.node === at) at = at.nextElementSibling;
    else parent.insertBefore(row.node, at);
    now.set(k, row);
    update(row, item);
  }
  parent.keyed = now;
}

// near tells a row whether it is on the screen, and draws it when it comes there: rows elsewhere cost
// nothing.
const watcher = new IntersectionObserver((entries) => {
  for (const e of entries) {
    e.target.row.seen = e.isIntersecting;
    if (e.isIntersecting) e.target.row.draw();
  }
}, { rootMargin: '200px' });

export function near(row) {
  row.node.row = row;
  watcher.observe(row.node);
  return row;
}

const svg = 'http://www.w3.org/2000/svg';

// spark makes a line of the last values; drawSpark gives it new ones.
export function spark() {
  const line = document.createElementNS(svg, 'polyline'), node = document.createElementNS(svg, 'svg');
  for (const [k, v] of [['viewBox', '0 0 100 20'], ['preserveAspectRatio', 'none'], ['class', 'spark'], ['aria-hidden', 'true']]) node.setAttribute(k, v);
  node.append(line);
  return node;
}

export function drawSpark(node, values, points) {
  const shown = values.slice(-points), top = Math.max(...shown, 1e-9), low = Math.min(...shown, 0);
  const first = points - shown.length;
  mark(node.firstChild, 'points', shown.map((v, i) =>
    `${((first + i) * 100 / (points - 1)).toFixed(1)},${(19 - (v - low) / (top - low) * 18).toFixed(1)}`).join(' '));
}

export const size = (n) => n == null ? '' : n < 1e6 ? `${(n / 1024).toFixed(0)} KiB` : n < 1 << 30 ? `${(n / (1 << 20)).toFixed(1)} MiB` : `${(n / (1 << 30)).toFixed(2)} GiB`;
export const percent = (n) => n == null ? '' : `${n.toFixed(n < 10 ? 1 : 0)} %`;
export const rate = (n) => n == null ? '' : n < 10 && n > 0 ? n.toFixed(1) : n.toFixed(0);
export const count = (n) => n == null ? '' : n.toLocaleString('en').replaceAll(',', '\u202f');
export const plural = (n, word) => `${n} ${word}${n === 1 ? '' : 's'}`;

export function span(seconds) {
  if (!(seconds >= 0)) return '';
  if (seconds < 1) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(0)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(0)} h` : `${(seconds / 86400).toFixed(0)} d`;
}

export const clock = (time) => new Date(time).toLocaleTimeString('en-GB');
