// Class sizes from head to tail, with each index's MAP along them.

import { byId, el, thousands } from "./dom.js";
import { curve } from "./api.js";
import { address } from "./state.js";
import { GROUPS } from "./cards.js";
import { chart } from "./chart.js";

const WAIT = 400; // milliseconds between questions while the server computes
const figure = (value) => (value === null || value === undefined ? "–" : value.toFixed(4));

export async function show(main, state, info, signal) {
  main.replaceChildren(el("section", { class: "found" }, el("h1", {}, "Class sizes and MAP"), el("p", { class: "lead", id: "computing" }, "MAP is being computed …")));
  const found = await Promise.all(info.sides.map((_, number) => finished(number, signal)));
  if (signal.aborted) return;
  const ready = found.map((each, number) => ({ ...each, number, name: info.sides[number].name, bits: info.sides[number].code_length })).filter((each) => each.state === "ready");
  const missing = found.map((each, number) => (each.state === "missing" ? el("p", { class: "error" }, `${info.sides[number].name}: ${each.why}`) : null));
  main.replaceChildren(el("section", { class: "found", "aria-labelledby": "curve" },
    el("div", { class: "heading" }, el("h1", { id: "curve", tabindex: "-1" }, "Class sizes and MAP")),
    missing, ready.length ? [summary(ready), ...charts(ready, state), table(ready, state), footnote(ready)] : null));
  byId("status").textContent = ready.length ? `MAP ${figure(ready[0].map)}` : "MAP is not known";
}

async function finished(number, signal) {
  for (;;) {
    const found = await curve(number);
    if (found.state !== "computing" || signal.aborted) return found;
    await new Promise((resume) => setTimeout(resume, WAIT));
  }
}

const groupsOf = (side) => Object.keys(GROUPS).filter((group) => side.classes.some((each) => each.group === group));

function summary(ready) {
  const groups = [...new Set(ready.flatMap(groupsOf))];
  return el("div", { class: "scroll" }, el("table", { class: "summary" },
    el("caption", { class: "hidden" }, "MAP over all classes and by group"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Index"), el("th", { scope: "col" }, "MAP"),
      groups.map((group) => el("th", { scope: "col", title: GROUPS[group].size }, el("span", { class: `size ${group}` }, GROUPS[group].short))))),
    el("tbody", {}, ready.map((side, at) => el("tr", {},
      el("th", { scope: "row" }, el("span", { class: `key series_${at}`, "aria-hidden": "true" }), `${side.name} `, el("small", {}, `${side.bits} bits`)),
      el("td", {}, el("b", {}, figure(side.map))), groups.map((group) => el("td", {}, figure(side.groups[group]))))))));
}

/** One chart where the indexes have the same classes, else one each. */
function charts(ready, state) {
  const names = (side) => side.classes.map((each) => `${each.name} ${each.count}`).join("\n");
  const together = ready.every((side) => names(side) === names(ready[0]));
  return (together ? [ready] : ready.map((side) => [side])).map((sides) => {
    const told = el("p", { class: "told", "aria-hidden": "true" }, "Point at a class to read it; click to see its images.");
    const tell = (text) => { told.textContent = text; };
    return el("figure", { class: "chart" },
      el("figcaption", {}, el("span", { class: "bars" }), "training images of a class", sides.map((side) =>
        el("span", { class: "pair" }, el("span", { class: `key series_${ready.indexOf(side)}` }), `MAP, ${side.name}`)), el("span", { class: "faint" }, "line: mean over neighbouring classes")),
      chart(sides, ready, (label, number) => address(state, { view: "browse", label, side: number, page: 0 }), tell), told);
  });
}

function table(ready, state) {
  const scores = ready.map((side) => new Map(side.classes.map((each) => [each.name, each.map])));
  const sorted = [...ready[0].classes].sort((a, b) => (b.count ?? 0) - (a.count ?? 0));
  return el("details", { class: "all" }, el("summary", {}, `All ${thousands(sorted.length)} classes as a table`),
    el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Class"), el("th", { scope: "col" }, "Training images"), el("th", { scope: "col" }, "Group"), ready.map((side) => el("th", { scope: "col" }, `MAP, ${side.name}`)))),
      el("tbody", {}, sorted.map((each) => el("tr", {},
        el("th", { scope: "row" }, el("a", { href: address(state, { view: "browse", label: each.name, side: ready[0].number, page: 0 }) }, each.name)),
        el("td", {}, each.count === null ? "–" : thousands(each.count)), el("td", {}, each.group ? el("span", { class: `size ${each.group}` }, GROUPS[each.group].short) : "–"),
        scores.map((score) => el("td", {}, figure(score.get(each.name))))))))));
}

function footnote(ready) {
  const [first] = ready;
  const drawn = first.queries < first.queries_there ? `, drawn from ${thousands(first.queries_there)}` : "";
  return el("p", { class: "note" }, `${thousands(first.queries)} queries (split 'query'${drawn}) against ${thousands(first.database)} images (split 'database'), the whole ranking, the exact mean over all orders of images at equal distance. ${first.sizes ? `Class sizes: ${first.sizes}.` : "The index does not know the sizes of its classes."}`);
}
