// What the page shows, as the address says it: so a search can be kept, sent and gone back to.

const NUMBERS = { id: null, side: 0, k: 10, page: 0, shuffle: 1 };
const TEXTS = { view: "search", code: "", label: "", split: "", where: "" };

export const EVERY = "every"; // split: all of them, where the address must tell it from none given

export function read(search = location.search) {
  const given = new URLSearchParams(search);
  const state = {};
  for (const [name, usual] of Object.entries(TEXTS)) state[name] = given.get(name) ?? usual;
  for (const [name, usual] of Object.entries(NUMBERS)) {
    const text = given.get(name);
    state[name] = text !== null && /^\d{1,15}$/.test(text) ? Number(text) : usual;
  }
  return state;
}

/** The address of the state with some changes; what is as usual is left out. */
export function address(state, changes = {}) {
  const wanted = { ...state, ...changes };
  const given = new URLSearchParams();
  for (const [name, usual] of [...Object.entries(TEXTS), ...Object.entries(NUMBERS)]) {
    const value = wanted[name];
    if (value !== usual && value !== null && value !== "") given.set(name, value);
  }
  return `?${given}`;
}

export function go(target, replace = false) {
  if (replace) history.replaceState(null, "", target);
  else history.pushState(null, "", target);
  dispatchEvent(new Event("moved"));
}

/** Let plain clicks on links within the page change the address alone. */
export function followLinks() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='?'], a[href='/']");
    const plain = event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);
    if (!link || !plain || event.defaultPrevented) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
  addEventListener("popstate", () => dispatchEvent(new Event("moved")));
}
