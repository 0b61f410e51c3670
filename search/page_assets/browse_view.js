// The images of an index, filtered, a page at a time.

import { el, thousands } from "./dom.js";
import { browse } from "./api.js";
import { address } from "./state.js";
import { browseCard } from "./cards.js";

const A_PAGE = 60;

export async function show(main, state, info, signal) {
  const found = await browse(state, A_PAGE, signal);
  const pages = Math.max(1, Math.ceil(found.total / A_PAGE));
  const mixed = state.shuffle > 0;
  main.replaceChildren(el("section", { class: "found", "aria-labelledby": "browse" },
    el("div", { class: "heading" },
      el("h1", { id: "browse", tabindex: "-1" }, `${thousands(found.total)} images`),
      info.sides.length > 1 ? choice("Index", info.sides.map((side, number) => [side.name, { side: number, page: 0 }, state.side === number]), state) : null,
      choice("Order", [["mixed", { shuffle: 1, page: 0 }, mixed], ["by id", { shuffle: 0, page: 0 }, !mixed]], state)),
    found.items.length ? null : el("p", { class: "lead" }, "No image meets the filters."),
    el("ul", { class: "grid small" }, found.items.map((item) => browseCard(state.side, item, state))),
    pages > 1 ? turn(state, pages) : null));
}

function choice(name, options, state) {
  return el("span", { class: "choice", role: "group", "aria-label": name },
    options.map(([text, changes, chosen]) => el("a", { href: address(state, changes), "aria-current": chosen ? "true" : null }, text)));
}

function turn(state, pages) {
  const to = (page, text) => page < 0 || page >= pages
    ? el("span", { class: "button off", "aria-hidden": "true" }, text)
    : el("a", { class: "button", href: address(state, { page }) }, text);
  return el("nav", { class: "turn", "aria-label": "Pages" }, to(state.page - 1, "← Earlier"),
    el("span", {}, `${thousands(state.page + 1)} of ${thousands(pages)}`), to(state.page + 1, "Later →"));
}
