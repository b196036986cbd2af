'use strict';
(() => {
const canvas = document.getElementById('picture'), pen = canvas.getContext('2d');
const search = document.getElementById('search'), hitCount = document.getElementById('hits');
const details = document.getElementById('details');
const {nodes, edges, kinds} = graph;
const kindOf = Object.fromEntries(kinds.map(k => [k.kind, k]));

// Edges by node, and the names by which others call a node.
for (const n of nodes) { n.into = []; n.outof = []; n.names = new Set([n.label, n.path || '', n.id]); }
edges.forEach(e => {
  nodes[e.to].into.push(e);
  nodes[e.from].outof.push(e);
  if (e.name) nodes[e.to].names.add(e.name);
});
for (const n of nodes) n.text = [...n.names].join('\n').toLowerCase();
const byImportance = nodes.map((_, i) => i).sort((a, b) => nodes[b].importance - nodes[a].importance);

const hidden = new Set();          // kinds that are not shown
let view = {x: 0, y: 0, scale: 1}; // the point in the middle, and pixels per unit
let chosen = -1, over = -1, hits = [], hit = -1, near = null, frame = 0;

const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
let colors;
function readColors() { colors = {paper: css('--paper'), ink: css('--ink'), line: css('--line')}; }
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { readColors(); redraw(); });

const shown = n => !hidden.has(n.kind);
const width = () => canvas.clientWidth, height = () => canvas.clientHeight;
const toScreen = n => [(n.x - view.x) * view.scale + width() / 2, (n.y - view.y) * view.scale + height() / 2];
const toWorld = (x, y) => [(x - width() / 2) / view.scale + view.x, (y - height() / 2) / view.scale + view.y];

function resize() {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width() * ratio);
  canvas.height = Math.round(height() * ratio);
  redraw();
}

function redraw() { if (!frame) frame = requestAnimationFrame(() => { frame = 0; draw(); }); }

function draw() {
  const ratio = devicePixelRatio || 1;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = colors.paper;
  pen.fillRect(0, 0, width(), height());
  pen.setTransform(ratio * view.scale, 0, 0, ratio * view.scale,
    ratio * (width() / 2 - view.x * view.scale), ratio * (height() / 2 - view.y * view.scale));
  drawEdges();
  const screen = drawNodes();
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  drawLabels(screen);
}

function drawEdges() {
  const thin = Math.max(0.6 / view.scale, 0.4);
  for (const shared of [false, true]) {
    stroke(edges.filter(e => nodes[e.to].into.length > 1 === shared), shared ? graph.shared : colors.line, thin, near ? 0.15 : shared ? 0.25 : 0.6);
  }
  if (near) stroke(edges.filter(e => e.from === chosen || e.to === chosen || e.from === over || e.to === over), colors.ink, 2 * thin, 0.8);
}

function stroke(list, color, thickness, alpha) {
  pen.strokeStyle = color;
  pen.globalAlpha = alpha;
  pen.lineWidth = thickness;
  pen.beginPath();
  for (const e of list) {
    const a = nodes[e.from], b = nodes[e.to];
    if (!shown(a) || !shown(b)) continue;
    pen.moveTo(a.x, a.y);
    pen.lineTo(b.x, b.y);
  }
  pen.stroke();
  pen.globalAlpha = 1;
}

// drawNodes returns the indexes of the nodes that can be seen.
function drawNodes() {
  const [left, top] = toWorld(0, 0), [right, bottom] = toWorld(width(), height());
  const found = hits.length ? new Set(hits) : null;
  const seen = [];
  nodes.forEach((n, i) => {
    const r = n.radius;
    if (!shown(n) || n.x + r < left || n.x - r > right || n.y + r < top || n.y - r > bottom) return;
    seen.push(i);
    const dim = near ? !near.has(i) : found && !found.has(i);
    pen.globalAlpha = dim ? 0.25 : 1;
    pen.fillStyle = kindOf[n.kind].color;
    pen.beginPath();
    pen.arc(n.x, n.y, Math.max(r, 1.2 / view.scale), 0, 7);
    pen.fill();
    if (n.into.length > 1) {
      pen.strokeStyle = graph.shared;
      pen.lineWidth = Math.max(1 + Math.log2(n.into.length), 1 / view.scale);
      pen.stroke();
    }
    if (n.damage) { pen.strokeStyle = colors.ink; pen.lineWidth = 3; pen.setLineDash([3, 3]); pen.stroke(); pen.setLineDash([]); }
    if (i === chosen || i === hits[hit]) {
      pen.strokeStyle = colors.ink;
      pen.lineWidth = 2.5 / view.scale;
      pen.beginPath();
      pen.arc(n.x, n.y, r + 4 / view.scale + 2, 0, 7);
      pen.stroke();
    }
  });
  pen.globalAlpha = 1;
  return new Set(seen);
}

// drawLabels names nodes from the most important down, wherever there is room.
function drawLabels(seen) {
  const taken = [], found = hits.length ? new Set(hits) : null;
  const place = (i, must) => {
    const n = nodes[i], [x, y] = toScreen(n), r = n.radius * view.scale;
    const isID = n.id.startsWith(n.label);
    if (!must && (isID ? r < 14 : n.importance < 30 && r < 2)) return;
    let text = n.label.length > 34 ? n.label.slice(0, 16) + '…' + n.label.slice(-16) : n.label;
    if (n.into.length > 1 && r > 5) text += ' ×' + n.into.length;
    const big = n.kind === 'snapshot' || n.kind === 'object';
    pen.font = (big ? 'bold 14px' : '12px') + ' system-ui, sans-serif';
    const box = [x + r + 3, y - 7, pen.measureText(text).width, 14];
    if (!must && taken.some(t => box[0] < t[0] + t[2] && t[0] < box[0] + box[2] && box[1] < t[1] + t[3] && t[1] < box[1] + box[3])) return;
    taken.push(box);
    pen.lineWidth = 3;
    pen.strokeStyle = colors.paper;
    pen.strokeText(text, box[0], y);
    pen.fillStyle = colors.ink;
    pen.fillText(text, box[0], y);
  };
  pen.textBaseline = 'middle';
  pen.lineJoin = 'round';
  for (const i of [over, chosen, hits[hit]]) if (seen.has(i)) place(i, true);
  for (const i of byImportance) {
    if (taken.length >= 220) break;
    const n = nodes[i], root = n.kind === 'snapshot' || n.kind === 'object';
    if (seen.has(i) && (root || !(near ? !near.has(i) : found && !found.has(i)))) place(i, false);
  }
}

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let u = 0;
  while (n >= 1024 && u < units.length - 1) { n /= 1024; u++; }
  return (u && n < 10 ? n.toFixed(1) : Math.round(n)) + ' ' + units[u];
}

const make = (tag, cls, text) => {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
};

function dot(kind) {
  const d = make('span', 'dot');
  d.style.background = kindOf[kind].color;
  return d;
}

function showDetails() {
  details.hidden = chosen < 0;
  details.textContent = '';
  if (chosen < 0) return;
  const n = nodes[chosen];
  const close = make('button', '', '×');
  close.id = 'close';
  close.title = 'Close (Esc)';
  close.onclick = () => choose(-1);
  const what = make('div', 'kind');
  what.append(dot(n.kind), ' ' + kindOf[n.kind].what);
  what.firstChild.style.cssText += 'display:inline-block;width:10px;height:10px;border-radius:50%';
  details.append(close, make('h2', '', n.label), what);
  if (n.damage) details.append(make('p', 'damage', n.damage));
  const list = make('dl');
  const row = (k, v, cls) => list.append(make('dt', '', k), make('dd', cls, v));
  if (n.path) row('Path', n.path);
  if (/^[0-9a-f]{64}$/.test(n.id)) row('ID', n.id, 'id');
  if (n.size_bytes) row('Stands for', bytes(n.size_bytes));
  if (n.raw_bytes) row('Plain', bytes(n.raw_bytes));
  if (n.stored_bytes) row('Stored', bytes(n.stored_bytes));
  if (n.refs) row('References', n.refs.toLocaleString() + (n.into.length && n.refs > n.into.length ? `, ${n.into.length} of them here` : ''));
  if (n.entropy) row('Entropy', n.entropy.toFixed(2) + ' bits a byte');
  details.append(list);
  showEdges('Referred to by', n.into, e => e.from);
  showEdges('Made of', n.outof, e => e.to);
}

function showEdges(title, list, end) {
  if (!list.length) return;
  details.append(make('h3', '', `${title} (${list.length.toLocaleString()})`));
  const ul = make('ul');
  const most = 200;
  for (const e of list.slice(0, most)) {
    const other = nodes[end(e)], li = make('li');
    const up = end(e) === e.from;
    const name = up ? (other.path || other.label) + (e.name && e.name !== nodes[chosen].label ? ' as ' + e.name : '') : e.name || other.label;
    let more = e.role === 'contains' || e.role === 'live' ? 'at ' + e.offset.toLocaleString() : '';
    if (e.count > 1) more += ` ×${e.count}`;
    li.append(dot(other.kind), make('span', 'name', name), make('span', 'more', more));
    li.title = other.path || other.id;
    li.onclick = () => { choose(end(e)); center(end(e)); };
    ul.append(li);
  }
  details.append(ul);
  if (list.length > most) details.append(make('div', 'kind', `and ${list.length - most} more`));
}

function choose(i) {
  chosen = i;
  neighbours();
  showDetails();
  redraw();
}

// neighbours are what is not dimmed while a node is looked at.
function neighbours() {
  const i = over >= 0 ? over : chosen;
  near = null;
  if (i < 0) return;
  near = new Set([i, chosen]);
  for (const e of nodes[i].into) near.add(e.from);
  for (const e of nodes[i].outof) near.add(e.to);
}

function center(i) {
  const n = nodes[i], from = {...view}, begun = performance.now();
  const to = {x: n.x, y: n.y, scale: Math.max(view.scale, Math.min(2, 26 / n.radius))};
  const step = now => {
    const t = Math.min(1, (now - begun) / 300), s = t * t * (3 - 2 * t);
    view = {x: from.x + (to.x - from.x) * s, y: from.y + (to.y - from.y) * s, scale: from.scale * (to.scale / from.scale) ** s};
    redraw();
    if (t < 1) requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

function showAll() {
  let box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const n of nodes) {
    if (!shown(n)) continue;
    box = [Math.min(box[0], n.x - n.radius), Math.min(box[1], n.y - n.radius), Math.max(box[2], n.x + n.radius), Math.max(box[3], n.y + n.radius)];
  }
  if (box[0] > box[2]) return;
  const left = width() > 800 ? 310 : 0; // what the panel covers
  const scale = Math.min((width() - left - 40) / (box[2] - box[0] + 60), (height() - 40) / (box[3] - box[1] + 20), 4);
  view = {x: (box[0] + box[2]) / 2 - left / 2 / scale, y: (box[1] + box[3]) / 2, scale};
  redraw();
}

function zoom(factor, x = width() / 2, y = height() / 2) {
  const [wx, wy] = toWorld(x, y);
  view.scale = Math.min(30, Math.max(0.01, view.scale * factor));
  const [nx, ny] = toWorld(x, y);
  view.x += wx - nx;
  view.y += wy - ny;
  redraw();
}

function at(x, y) {
  let best = -1, least = Infinity;
  const [wx, wy] = toWorld(x, y), slack = 4 / view.scale;
  nodes.forEach((n, i) => {
    if (!shown(n)) return;
    const d = Math.hypot(n.x - wx, n.y - wy) - n.radius;
    if (d < slack && d < least) { best = i; least = d; }
  });
  return best;
}

// One finger or the mouse moves, two fingers zoom.
const pointers = new Map();
let moved = 0;
canvas.addEventListener('pointerdown', ev => {
  canvas.setPointerCapture(ev.pointerId);
  pointers.set(ev.pointerId, [ev.clientX, ev.clientY]);
  moved = 0;
  canvas.classList.add('moving');
});
canvas.addEventListener('pointermove', ev => {
  const old = pointers.get(ev.pointerId);
  if (!old) {
    const i = at(ev.clientX, ev.clientY);
    canvas.classList.toggle('over', i >= 0);
    if (i !== over) { over = i; neighbours(); redraw(); }
    return;
  }
  const spread = () => { const p = [...pointers.values()]; return Math.hypot(p[0][0] - p[1][0], p[0][1] - p[1][1]); };
  const before = pointers.size === 2 ? spread() : 0;
  pointers.set(ev.pointerId, [ev.clientX, ev.clientY]);
  moved += Math.abs(ev.clientX - old[0]) + Math.abs(ev.clientY - old[1]);
  if (pointers.size === 1) {
    view.x -= (ev.clientX - old[0]) / view.scale;
    view.y -= (ev.clientY - old[1]) / view.scale;
    redraw();
  } else if (pointers.size === 2 && before > 0) {
    const p = [...pointers.values()];
    zoom(spread() / before, (p[0][0] + p[1][0]) / 2, (p[0][1] + p[1][1]) / 2);
  }
});
for (const name of ['pointerup', 'pointercancel']) {
  canvas.addEventListener(name, ev => {
    pointers.delete(ev.pointerId);
    canvas.classList.remove('moving');
    if (name === 'pointerup' && moved < 5) choose(at(ev.clientX, ev.clientY));
  });
}
canvas.addEventListener('wheel', ev => {
  ev.preventDefault();
  zoom(Math.exp(-ev.deltaY * (ev.deltaMode ? 0.05 : 0.0015)), ev.clientX, ev.clientY);
}, {passive: false});

function find() {
  const want = search.value.trim().toLowerCase();
  hits = want ? byImportance.filter(i => shown(nodes[i]) && nodes[i].text.includes(want)) : [];
  hit = -1;
  hitCount.textContent = want ? (hits.length ? hits.length.toLocaleString() : 'none') : '';
  redraw();
}
search.addEventListener('input', find);
search.addEventListener('keydown', ev => {
  if (ev.key === 'Escape') { search.value = ''; find(); canvas.focus(); }
  if (ev.key !== 'Enter' || !hits.length) return;
  hit = (hit + (ev.shiftKey ? hits.length - 1 : 1)) % hits.length;
  hitCount.textContent = `${hit + 1} / ${hits.length.toLocaleString()}`;
  choose(hits[hit]);
  center(hits[hit]);
});
document.addEventListener('keydown', ev => {
  if (ev.target === search) return;
  if (ev.key === '/') { ev.preventDefault(); search.focus(); search.select(); }
  if (ev.key === 'Escape') choose(-1);
  if (ev.key === '+' || ev.key === '=') zoom(1.4);
  if (ev.key === '-') zoom(1 / 1.4);
  if (ev.key === '0') showAll();
});
document.getElementById('in').onclick = () => zoom(1.4);
document.getElementById('out').onclick = () => zoom(1 / 1.4);
document.getElementById('all').onclick = showAll;

const list = document.getElementById('kinds');
for (const k of kinds) {
  const li = make('li'), label = make('label'), box = make('input');
  box.type = 'checkbox';
  box.checked = true;
  box.onchange = () => { box.checked ? hidden.delete(k.kind) : hidden.add(k.kind); find(); };
  label.append(box, dot(k.kind), k.what, make('span', 'count', nodes.filter(n => n.kind === k.kind).length.toLocaleString()));
  li.append(label);
  list.append(li);
}
const shared = nodes.filter(n => n.into.length > 1).length;
if (shared) {
  const li = make('li'), label = make('label'), ring = make('span', 'dot');
  ring.style.border = '2px solid ' + graph.shared;
  ring.style.marginLeft = '20px';
  label.style.cursor = 'default';
  label.append(ring, 'several refer to it', make('span', 'count', shared.toLocaleString()));
  li.append(label);
  list.append(li);
}

readColors();
addEventListener('resize', resize);
resize();
showAll();
// #name in the address opens the page at what it finds.
const wanted = decodeURIComponent(location.hash.slice(1));
if (wanted) {
  search.value = wanted;
  find();
  if (hits.length) { hit = 0; choose(hits[0]); if (view.scale < 0.4) center(hits[0]); }
}
})();
