// Ties the views to the address, and pictures that are given to the search.

import { byId, el, say, thousands } from "./dom.js";
import * as api from "./api.js";
import { address, EVERY, followLinks, go, read } from "./state.js";
import * as searchView from "./search_view.js";
import * as browseView from "./browse_view.js";
import * as curveView from "./curve_view.js";

const MANY_CLASSES = 2000; // more make a list too long to open
const VIEWS = { search: searchView, browse: browseView, classes: curveView };
const main = byId("main");
let info;
let asking = new AbortController();
let given = null; // the answer to an upload, whose address comes after it

/** What the address says, completed by what is usual for these indexes. */
function current() {
  const state = read();
  if (!(state.view in VIEWS)) state.view = "search";
  state.side = Math.min(state.side, info.sides.length - 1);
  state.k = Math.min(Math.max(state.k, 1), info.largest_k);
  if (!state.split && state.view !== "browse" && info.sides.every((side) => side.splits.includes("database"))) state.split = "database";
  return state;
}

async function draw() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const state = current();
  const answer = given;
  given = null;
  showFilters(state);
  say(byId("give_error"), "");
  say(byId("where_error"), "");
  main.setAttribute("aria-busy", "true");
  try {
    await VIEWS[state.view].show(main, state, info, signal, answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    const ofFilter = error.status === 400 && state.where;
    if (ofFilter) {
      say(byId("where_error"), error.message);
      byId("panel").open = true;
    } else main.replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
    byId("where").setAttribute("aria-invalid", String(Boolean(ofFilter)));
  } finally {
    if (!signal.aborted) main.removeAttribute("aria-busy");
  }
}

function showFilters(state) {
  for (const link of document.querySelectorAll("#views a")) {
    if (link.dataset.view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("layout").className = `layout ${state.view}`;
  byId("query").hidden = state.view !== "search" || (state.id === null && !state.code);
  byId("give").hidden = state.view !== "search";
  byId("field_k").hidden = state.view !== "search";
  byId("panel").hidden = state.view === "classes";
  byId("where").removeAttribute("aria-invalid");
  for (const name of ["k", "label", "split", "where"]) byId(name).value = state[name];
  if (!byId("split").value) byId("split").value = EVERY;
}

function makeFilters() {
  const first = info.sides[0];
  const classes = first.classes.map((each) => each.name);
  if (classes.length > MANY_CLASSES) byId("label").replaceWith(el("input", { type: "text", id: "label", name: "label", placeholder: "any" }));
  else byId("label").append(el("option", { value: "" }, "any"), ...[...classes].sort(new Intl.Collator("en", { numeric: true }).compare).map((name) => el("option", { value: name }, name)));
  byId("field_label").hidden = !classes.length;
  byId("split").append(el("option", { value: EVERY }, "any"), ...first.splits.map((name) => el("option", { value: name }, name)));
  byId("field_split").hidden = !first.splits.length;
  byId("k").max = info.largest_k;
  const apply = () => {
    const state = current();
    const k = Math.min(Math.max(Number(byId("k").value) || 10, 1), info.largest_k);
    go(address(state, { k, label: byId("label").value, split: byId("split").value, where: byId("where").value.trim(), page: 0 }));
  };
  byId("filters").addEventListener("submit", (event) => { event.preventDefault(); apply(); });
  for (const name of ["k", "label", "split"]) byId(name).addEventListener("change", apply);
  byId("clear").addEventListener("click", () => go(address(current(), { label: "", split: "", where: "", page: 0, k: 10 })));
  if (matchMedia("(max-width: 760px)").matches) byId("panel").open = false;
}

async function give(file) {
  say(byId("give_error"), "");
  const none = info.sides.every((side) => side.no_coder);
  if (none) return say(byId("give_error"), info.sides[0].no_coder);
  if (file.size > info.max_bytes) return say(byId("give_error"), `this file has ${(file.size / 2 ** 20).toFixed(1)} MiB; the page takes up to ${info.max_bytes / 2 ** 20}`);
  asking.abort();
  asking = new AbortController();
  const state = { ...current(), view: "search", id: null, side: 0, page: 0, shuffle: 1 };
  byId("drop").setAttribute("aria-busy", "true");
  try {
    const found = await api.upload(file, state, asking.signal);
    searchView.keep(found.query.code, file);
    given = found;
    go(address({ ...state, code: found.query.code }));
  } catch (error) {
    if (error.name !== "AbortError") say(byId("give_error"), error.message);
  } finally {
    byId("drop").removeAttribute("aria-busy");
  }
}

function takePictures() {
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) give(file);
    event.target.value = "";
  });
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (!file) return;
    event.preventDefault();
    give(file);
  });
  const curtain = byId("curtain");
  const holdsFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragover", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    curtain.hidden = false;
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) curtain.hidden = true; });
  addEventListener("drop", (event) => {
    curtain.hidden = true;
    const [file] = event.dataTransfer?.files ?? [];
    if (!file) return;
    event.preventDefault();
    give(file);
  });
}

function showFacts() {
  byId("facts").replaceChildren(...info.sides.map((side) =>
    el("li", { title: `${side.store} store, ${side.kind}${side.model ? `, model ${side.model}` : ""}` },
      el("b", {}, side.name), ` ${thousands(side.items)} × ${side.code_length} bits`)));
  const why = info.sides.filter((side) => side.no_coder);
  if (why.length === info.sides.length) {
    byId("drop").hidden = true;
    say(byId("give_error"), why[0].no_coder);
  }
}

try {
  info = await api.info();
  showFacts();
  makeFilters();
  takePictures();
  followLinks();
  addEventListener("moved", async () => {
    scrollTo(0, 0);
    await draw();
    // What had the focus may be gone: go on from the heading, which is read out.
    if (document.activeElement === document.body) main.querySelector("h1[tabindex]")?.focus({ preventScroll: true });
  });
  await draw();
} catch (error) {
  main.replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
}
