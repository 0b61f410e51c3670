// Questions to the server; whatever goes wrong is an Error with one line.

import { EVERY } from "./state.js";
import { byId } from "./dom.js";

let open = 0;

async function ask(path, options = {}) {
  byId("progress").hidden = ++open === 0;
  let response;
  try {
    response = await fetch(path, options);
    const found = await response.json();
    if (response.ok) return found;
    throw Object.assign(new Error(found.error || `the server answered ${response.status}`), { status: response.status });
  } catch (error) {
    if (error.name === "AbortError" || error.status) throw error;
    throw new Error(response ? `the server answered ${response.status}, not in JSON` : "the page's server does not answer; is it still running?");
  } finally {
    byId("progress").hidden = --open === 0;
  }
}

function filters(state) {
  const given = new URLSearchParams({ k: state.k });
  for (const name of ["label", "where"]) if (state[name]) given.set(name, state[name]);
  if (state.split && state.split !== EVERY) given.set("split", state.split);
  return given;
}

export const info = () => ask("/api/info");
export const curve = (side) => ask(`/api/curve?side=${side}`);
export const picture = (side, id, size) => `/picture/${side}/${id}${size === "large" ? "?size=large" : ""}`;

export function search(state, signal) {
  const given = filters(state);
  if (state.id !== null) {
    given.set("id", state.id);
    given.set("side", state.side);
  } else given.set("code", state.code);
  return ask(`/api/search?${given}`, { signal });
}

export function upload(file, state, signal) {
  const headers = { "content-type": "application/octet-stream" };
  return ask(`/api/search?${filters(state)}`, { method: "POST", body: file, headers, signal });
}

export function browse(state, count, signal) {
  const given = filters({ ...state, k: count });
  given.set("side", state.side);
  given.set("offset", state.page * count);
  given.set("shuffle", state.shuffle);
  return ask(`/api/browse?${given}`, { signal });
}
