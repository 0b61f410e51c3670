// Elements from plain values. Texts become text nodes, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** A name that may be broken after '_', '/' and '-'. */
export function words(text) {
  return text.split(/(?<=[_/-])/).flatMap((part, at) => (at ? [el("wbr"), part] : [part]));
}

/** Show a line in an element, or hide it when there is none. */
export function say(node, text) {
  node.textContent = text || "";
  node.hidden = !text;
}

export const thousands = (number) => number.toLocaleString("en");
export const plural = (count, one, many) => `${thousands(count)} ${count === 1 ? one : many}`;
