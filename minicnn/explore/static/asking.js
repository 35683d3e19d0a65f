// What the page asks of the server, and what it shows while that is computed.

const $ = id => document.getElementById(id);
const tab = Math.random().toString(36).slice(2);
let open = 0, slow;

export async function ask(path, query = {}, options = {}) {
  busy(1);
  try {
    const answer = await fetch(`/api/${path}?${new URLSearchParams(query)}`,
                               { ...options, headers: { "X-Tab": tab } });
    if (answer.status === 204) return null;                         // a newer question has made it obsolete
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    return found;
  } catch (error) {
    fail(error instanceof TypeError ? "minicnn explore does not answer; is it still running in the terminal?" : error.message);
    return null;
  } finally { busy(-1); }
}

function busy(change) {
  open += change;
  $("busy").classList.toggle("on", open > 0);
  document.querySelector("main").setAttribute("aria-busy", open > 0);
  if (open && !slow) slow = setTimeout(() => {
    $("busy").firstChild.textContent = "Still computing; the first picture of a kind compiles its kernels";
  }, 2500);
  if (!open) { clearTimeout(slow); slow = null; $("busy").firstChild.textContent = ""; }
}

function fail(words) {
  $("error").firstElementChild.textContent = words;
  $("error").hidden = false;
}

// While work of a topic runs, of what is asked for meanwhile only the newest is done.
const running = new Map();
export async function latest(topic, work) {
  if (running.has(topic)) { running.set(topic, work); return; }
  running.set(topic, null);
  busy(1);
  try {
    for (let next = work; next; next = running.get(topic)) { running.set(topic, null); await next(); }
  } finally { running.delete(topic); busy(-1); }
}
