// As much of a browser as page.js uses. What is drawn is counted, not shown.
var frames = [], texts = [], arcs = 0, clock = 0;
function Element(tag) {
  this.tag = tag; this.children = []; this.handlers = {}; this.style = {cssText: ''}; this.hidden = false; this.value = '';
  this.clientWidth = 1200; this.clientHeight = 800; this.own = '';
  this.classList = {add() {}, remove() {}, toggle() {}};
}
Element.prototype = {
  addEventListener(name, fn) { (this.handlers[name] = this.handlers[name] || []).push(fn); },
  fire(name, ev) { for (const fn of this.handlers[name] || []) fn(Object.assign({target: this, preventDefault() {}}, ev)); },
  append(...list) { this.children.push(...list); },
  focus() {}, select() {}, setPointerCapture() {},
  get firstChild() { return this.children[0]; },
  get textContent() { return this.own + this.children.map(c => typeof c === 'string' ? c : c.textContent).join(' '); },
  set textContent(t) { this.own = t; this.children = []; },
  getContext() {
    const pen = {measureText: t => ({width: 7 * t.length}), arc() { arcs++; }, fillText(t) { texts.push(t); }};
    for (const name of ['setTransform', 'fillRect', 'beginPath', 'moveTo', 'lineTo', 'stroke', 'fill', 'setLineDash', 'strokeText']) pen[name] = () => {};
    return pen;
  },
};
var elements = {}, document = new Element('document');
document.getElementById = id => elements[id] = elements[id] || new Element(id);
document.createElement = tag => new Element(tag);
document.documentElement = new Element('html');
var getComputedStyle = () => ({getPropertyValue: name => ' ' + name + ' '});
var matchMedia = () => new Element('media');
var devicePixelRatio = 1, location = {hash: ''};
var performance = {now: () => clock};
var addEventListener = () => {};
var requestAnimationFrame = fn => frames.push(fn);
// settle draws until nothing moves, and returns what the last frame drew.
function settle() {
  while (frames.length) {
    arcs = 0; texts = []; clock += 50;
    for (const fn of frames.splice(0)) fn(clock);
  }
  return {arcs, texts};
}
