// One image of an index: picture, class, class size; as a link that searches with it.

import { el, thousands, words } from "./dom.js";
import { picture } from "./api.js";
import { address } from "./state.js";

export const GROUPS = {
  many: { short: "many", name: "many-shot (head)", size: "more than 100 training images" },
  medium: { short: "medium", name: "medium-shot", size: "20 to 100 training images" },
  few: { short: "few", name: "few-shot (tail)", size: "fewer than 20 training images" },
};
const PIXELATED = 64; // pixels a side, up to which enlarging keeps them sharp

/** The picture of an image, or a tile that stands for it. */
export function thumb(side, item, size = "small") {
  const node = el("img", {
    src: picture(side, item.id, size), alt: "", loading: size === "small" ? "lazy" : null, decoding: "async",
    draggable: "false",
  });
  node.addEventListener("load", () => node.classList.toggle("pixels", Math.max(node.naturalWidth, node.naturalHeight) <= PIXELATED));
  const frame = el("span", { class: "thumb" }, node);
  node.addEventListener("error", () => frame.replaceChildren(el("span", { class: "none" }, "no picture")));
  return frame;
}

export function sizeTags(item) {
  return item.sizes.filter((each) => each.count !== null).map(({ label, count, group }) =>
    el("span", { class: `size ${group}`, title: `${label}: ${thousands(count)} training images, ${GROUPS[group].name}` },
      `${GROUPS[group].short} · ${thousands(count)}`));
}

const label = (item) => item.label.split(";").join(", ") || "no class";

export function browseCard(side, item, state) {
  const href = address(state, { view: "search", id: item.id, side, code: "", page: 0, shuffle: 1, label: "", where: "", split: "" });
  return el("li", {}, el("a", { class: "card", href, "aria-label": `Search with image ${item.id}, ${label(item)}` },
    thumb(side, item), el("span", { class: "name" }, words(label(item))), el("span", { class: "tags" }, sizeTags(item))));
}

export function resultCard(side, item, next, codeLength, state) {
  const tied = item.tied > 1;
  const verdict = item.right === null || item.right === undefined ? null : item.right;
  const spoken = [`Rank ${item.rank}: ${label(item)}`, `distance ${item.distance} of ${codeLength} bits`,
    tied ? `tied with ${item.tied - 1} other${item.tied > 2 ? "s" : ""}` : "",
    verdict === null ? "" : verdict ? "right class" : "wrong class",
    ...item.sizes.filter((each) => each.count !== null).map((each) => `${each.count} training images, ${GROUPS[each.group].name}`)];
  const classes = ["card", tied ? "tied" : "", tied && next?.distance === item.distance ? "goes_on" : "",
    verdict === null ? "" : verdict ? "right" : "wrong"];
  const href = address(state, { view: "search", id: item.id, side, code: "" });
  return el("li", {}, el("a", { class: classes.join(" ").trim(), href, title: item.path, "aria-label": spoken.filter(Boolean).join(", ") },
    el("span", { class: "distance" }, `${item.distance}`, tied ? el("span", { class: "tie" }, " =") : null),
    thumb(side, item),
    meter(item.distance, codeLength),
    el("span", { class: "name" }, verdict === null ? null : el("span", { class: "verdict" }, verdict ? "✓ " : "✗ "), words(label(item))),
    el("span", { class: "tags" }, sizeTags(item))));
}

/** How many of the bits agree. */
function meter(distance, codeLength) {
  const bar = el("span", { class: "meter" }, el("span", {}));
  bar.firstChild.style.width = `${(100 * (codeLength - distance)) / codeLength}%`;
  return el("span", { class: "same" }, bar, el("span", { class: "bits" }, `${codeLength - distance}/${codeLength}`));
}
