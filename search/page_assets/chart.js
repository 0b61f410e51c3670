// Bars of class sizes on a logarithmic scale, and points of MAP on a linear one.

import { el, svg, thousands } from "./dom.js";

const HEIGHT = 340;
const EDGE = { left: 44, right: 40, top: 26, bottom: 26 };
const NEIGHBOURS = 0.06; // of all classes on each side: the mean line

/**
 * sides: drawn here, each with classes of {name, count, group, map}; of one and the same classes.
 * all: every index, whose order gives the colours. link(name, number): where a class leads.
 */
export function chart(sides, all, link, tell) {
  const holder = el("div", { class: "plot" });
  const order = sides[0].classes.map((each, at) => at).sort((a, b) => (sides[0].classes[b].count ?? 0) - (sides[0].classes[a].count ?? 0));
  let width = 0;
  new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (now === width || now < 40) return;
    width = now;
    holder.replaceChildren(draw(sides, all, order, width, link, tell));
  }).observe(holder);
  return holder;
}

function draw(sides, all, order, width, link, tell) {
  const classes = order.map((at) => sides[0].classes[at]);
  const inner = width - EDGE.left - EDGE.right;
  const step = inner / classes.length;
  const most = Math.max(1, ...classes.map((each) => each.count ?? 0));
  const floor = HEIGHT - EDGE.bottom;
  const high = floor - EDGE.top;
  const x = (at) => EDGE.left + (at + 0.5) * step;
  const ofCount = (count) => floor - (count > 0 ? Math.max(0.02, Math.log10(count * 2) / Math.log10(most * 2)) : 0) * high;
  const ofMap = (map) => floor - map * high;
  const node = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img",
    "aria-label": "Training images of each class, largest first, and MAP of each class; the table below holds the numbers" });
  node.append(...axes(most, width, floor, ofCount, ofMap));
  const gap = step > 4 ? 1 : 0;
  const counted = classes.some((each) => each.count !== null);
  if (counted) node.append(svg("g", {}, classes.map((each, at) => svg("rect", { class: `bar ${each.group ?? ""}`, x: x(at) - step / 2, y: ofCount(each.count ?? 0),
    width: Math.max(0.5, step - gap), height: floor - ofCount(each.count ?? 0) }))));
  for (const side of sides) node.append(series(side, all.indexOf(side), order, x, ofMap, step));
  node.append(touch(sides, order, x, step, floor, link, tell));
  node.append(svg("text", { class: "axis", x: EDGE.left, y: HEIGHT - 8 }, "head"), svg("text", { class: "axis", x: width - EDGE.right, y: HEIGHT - 8, "text-anchor": "end" }, "tail"));
  return node;
}

function axes(most, width, floor, ofCount, ofMap) {
  const nodes = [];
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    nodes.push(svg("line", { class: "grid_line", x1: EDGE.left, x2: width - EDGE.right, y1: ofMap(part), y2: ofMap(part) }));
    nodes.push(svg("text", { class: "axis", x: width - EDGE.right + 6, y: ofMap(part) + 4 }, part === 0 ? "0" : String(part)));
  }
  for (let count = 1; count <= most; count *= 10) {
    for (const tick of [count, 2 * count, 5 * count].filter((each) => each <= most)) {
      const label = svg("text", { class: "axis", x: EDGE.left - 6, y: ofCount(tick) + 4, "text-anchor": "end" }, thousands(tick));
      nodes.push(label);
    }
  }
  nodes.push(svg("text", { class: "axis", x: 2, y: 11 }, "images"));
  nodes.push(svg("text", { class: "axis", x: width - EDGE.right + 6, y: 11 }, "MAP"));
  return nodes;
}

function series(side, number, order, x, ofMap, step) {
  const values = order.map((at) => side.classes[at].map);
  const reach = Math.max(1, Math.round(order.length * NEIGHBOURS));
  const means = values.map((_, at) => {
    const near = values.slice(Math.max(0, at - reach), at + reach + 1).filter((value) => value !== null);
    return near.length ? near.reduce((sum, value) => sum + value, 0) / near.length : null;
  });
  const path = means.map((mean, at) => (mean === null ? "" : `${x(at).toFixed(1)},${ofMap(mean).toFixed(1)}`)).filter(Boolean).join(" ");
  const radius = Math.min(4.5, Math.max(1.6, step / 2.6));
  const points = values.map((value, at) => (value === null ? null : mark(number, x(at), ofMap(value), radius)));
  return svg("g", { class: `series series_${number}` }, points, order.length > 4 ? svg("polyline", { points: path }) : null);
}

function mark(number, x, y, radius) {
  if (number === 0) return svg("circle", { cx: x, cy: y, r: radius });
  const reach = radius * 1.25;
  return svg("path", { d: `M${x},${y - reach}L${x + reach},${y}L${x},${y + reach}L${x - reach},${y}Z` });
}

/** Invisible columns that tell of a class, and lead to its images. */
function touch(sides, order, x, step, floor, link, tell) {
  return svg("g", {}, order.map((place, at) => {
    const each = sides[0].classes[place];
    const maps = sides.map((side) => (side.classes[place].map === null ? "no query" : side.classes[place].map.toFixed(4)));
    const text = `${each.name}: ${each.count === null ? "size unknown" : `${thousands(each.count)} training images`}, MAP ${maps.join(" and ")}`;
    const column = svg("rect", { class: "touch", x: x(at) - step / 2, y: EDGE.top, width: step, height: floor - EDGE.top });
    const anchor = svg("a", { href: link(each.name, sides[0].number), tabindex: "-1", "aria-hidden": "true" }, svg("title", {}, text), column);
    anchor.addEventListener("pointerenter", () => tell(text));
    return anchor;
  }));
}
