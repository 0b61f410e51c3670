// The nearest images of a query, in every index.

import { el, byId, plural, thousands, words } from "./dom.js";
import { browse, search } from "./api.js";
import { address } from "./state.js";
import { browseCard, GROUPS, resultCard, sizeTags, thumb } from "./cards.js";

const SAMPLES = 36;
const kept = new Map(); // codes → what was dropped: a name and an address of its pixels
const KEPT = 20;

export function keep(code, file) {
  kept.set(code, { name: file.name || "pasted picture", url: URL.createObjectURL(file) });
  if (kept.size > KEPT) {
    const [oldest, { url }] = kept.entries().next().value;
    URL.revokeObjectURL(url);
    kept.delete(oldest);
  }
}

export async function show(main, state, info, signal, given = null) {
  if (state.id === null && !state.code) return invite(main, state, info, signal);
  const found = given || (await search(state, signal));
  showQuery(found.query, info);
  const two = found.sides.length > 1;
  const parts = found.sides.map((side, number) => results(side, number, state, info, found.query));
  main.replaceChildren(el("div", { class: two ? "columns" : "" }, parts), legend(info, found));
  const first = found.sides.find((side) => !side.error);
  byId("status").textContent = first ? `${plural(first.items.length, "image", "images")} found` : found.sides[0].error;
}

/** Without a query: some images to begin with. */
async function invite(main, state, info, signal) {
  byId("query").hidden = true;
  const found = await browse({ ...state, side: 0, page: 0, shuffle: state.shuffle }, SAMPLES, signal);
  const again = address(state, { shuffle: state.shuffle + 1 });
  main.replaceChildren(
    el("section", { class: "found", "aria-labelledby": "start" },
      el("div", { class: "heading" },
        el("h1", { id: "start" }, info.sides.every((side) => side.no_coder) ? "Pick an image" : "Drop a picture, or pick an image"),
        el("a", { class: "button", href: again }, "Others")),
      el("p", { class: "lead" }, `Some of ${thousands(found.total)} in ${info.sides[0].name}. Click one to see its nearest by Hamming distance.`),
      el("ul", { class: "grid small" }, found.items.map((item) => browseCard(0, item, state)))));
}

function showQuery(query, info) {
  const node = byId("query");
  node.hidden = false;
  if (query.id === undefined) {
    const dropped = kept.get(query.code);
    const image = dropped ? el("img", { src: dropped.url, alt: "The picture that was given" }) : el("span", { class: "none" }, "a picture that was given earlier");
    image.addEventListener("error", () => image.replaceWith(el("span", { class: "none" }, "no preview of this format")));
    node.replaceChildren(el("span", { class: "thumb" }, image),
      el("div", { class: "about" }, el("h2", {}, dropped ? dropped.name : "Your picture"),
        el("p", { class: "path" }, `code ${query.code.replace(",", " · ")}`)));
    return;
  }
  node.replaceChildren(thumb(query.side, query, "large"),
    el("div", { class: "about" },
      el("h2", {}, words(query.label.split(";").join(", ") || `Image ${query.id}`)),
      el("p", { class: "tags" }, sizeTags(query), query.split ? el("span", { class: "size" }, query.split) : null),
      el("p", { class: "path" }, `${info.sides.length > 1 ? `${info.sides[query.side].name}, ` : ""}id ${query.id} · `, words(query.path))));
}

function results(found, number, state, info, query) {
  const side = info.sides[number];
  const heading = `found_${number}`;
  const judged = found.items.filter((item) => item.right === true || item.right === false);
  const right = judged.filter((item) => item.right).length;
  const facts = found.error ? "" : `${thousands(found.items.length)} of ${found.searched === null ? "those filtered" : thousands(found.searched)} · ${found.milliseconds} ms`;
  return el("section", { class: "found", "aria-labelledby": heading },
    el("div", { class: "heading" },
      el("h1", { id: heading, tabindex: "-1" }, info.sides.length > 1 ? side.name : "Nearest images",
        info.sides.length > 1 ? el("small", {}, ` ${side.code_length} bits`) : null),
      judged.length ? el("span", { class: "score" }, el("b", {}, `${right} of ${judged.length}`), " right") : null,
      el("span", { class: "took" }, facts)),
    found.error ? el("p", { class: "error" }, found.error) : null,
    !found.error && !found.items.length ? el("p", { class: "lead" }, "No image meets the filters.") : null,
    el("ul", { class: "grid" }, found.items.map((item, at) => resultCard(number, item, found.items[at + 1], side.code_length, state))),
    found.cut_tie ? el("p", { class: "note" }, `= more images lie at distance ${found.items.at(-1).distance}; the lowest ids are shown.`) : null);
}

function legend(info, found) {
  const sized = info.sides.some((side) => side.sizes);
  const tied = found.sides.some((side) => side.items.some((item) => item.tied > 1));
  if (!sized && !tied) return null;
  return el("p", { class: "legend" },
    tied ? el("span", {}, el("b", { class: "mark" }, "="), " same distance: the order is by id") : null,
    sized ? Object.entries(GROUPS).map(([group, words]) => el("span", {}, el("span", { class: `size ${group}` }, words.short), ` ${words.name.replace("-shot", " shot")}: ${words.size}`)) : null);
}
