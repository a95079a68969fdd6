// Helpers for the DOM, for storage and for waiting. Text from the server becomes text nodes, never markup.

const SVG = 'http://www.w3.org/2000/svg';

export const byId = (id) => document.getElementById(id);

// Creates an element with properties and children. A name with a dash is an attribute.
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes('-')) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

// Creates a button whose accessible name also names the item that it acts on.
export const button = (text, item, onclick) =>
  element('button', { type: 'button', textContent: text, 'aria-label': `${text}: ${item}`, onclick });

// Creates the icon of a state; `draw` changes it.
export function icon() {
  const [svg, use] = ['svg', 'use'].map((tag) => document.createElementNS(SVG, tag));
  svg.setAttribute('aria-hidden', 'true');
  svg.append(use);
  return { svg, draw: (name) => use.setAttribute('href', `#icon-${name}`) };
}

// Sets the text of a node if it differs: a node whose text is set loses the user's selection.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Shows or hides a node. A hidden node cannot hold the focus: `instead` gets it first.
export function show(node, shown, instead) {
  if (!shown && node.contains(document.activeElement)) instead?.focus();
  node.hidden = !shown;
}

// Announces an event to screen readers.
export const announce = (text) => write(byId('announcement'), text);

// Stores an item for this tab (`sessionStorage`) or this browser (`localStorage`). A browser may forbid both:
// then nothing is stored.
export function writeStorage(storage, name, value) {
  try {
    if (value === null) window[storage].removeItem(name);
    else window[storage].setItem(name, value);
  } catch {}
}

export function readStorage(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

// Waits; ends early when the signal fires.
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, signal.aborted ? 0 : ms);
    signal.addEventListener('abort', () => resolve(clearTimeout(timer)), { once: true });
  });
}
