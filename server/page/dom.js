// What the page is made with. Whatever a server says becomes text here, never markup.

const SVG = 'http://www.w3.org/2000/svg';

export const byId = (id) => document.getElementById(id);

// An element with these properties and children. A name with a dash is an attribute.
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes('-')) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

// A button whose name for screen readers says of what it is one.
export const button = (text, of, onclick) =>
  element('button', { type: 'button', textContent: text, 'aria-label': `${text}: ${of}`, onclick });

// A picture of a state, and what changes it.
export function icon() {
  const [svg, use] = ['svg', 'use'].map((tag) => document.createElementNS(SVG, tag));
  svg.setAttribute('aria-hidden', 'true');
  svg.append(use);
  return { svg, draw: (name) => use.setAttribute('href', `#icon-${name}`) };
}

// Writes only what changed: what is written loses its selection.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// What is hidden cannot keep the focus: before that is lost, `instead` gets it.
export function show(node, shown, instead) {
  if (!shown && node.contains(document.activeElement)) instead?.focus();
  node.hidden = !shown;
}

// Tells those who do not see the page what happened.
export const say = (text) => write(byId('said'), text);

// What is kept for this tab (`sessionStorage`) or this browser (`localStorage`). Either can be forbidden: then nothing is.
export function keep(storage, name, value) {
  try {
    if (value === null) window[storage].removeItem(name);
    else window[storage].setItem(name, value);
  } catch {}
}

export function kept(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

// Waits; ends early once the signal fires.
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, signal.aborted ? 0 : ms);
    signal.addEventListener('abort', () => resolve(clearTimeout(timer)), { once: true });
  });
}
