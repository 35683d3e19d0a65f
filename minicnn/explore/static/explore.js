// The page of minicnn explore. Everything is asked of the server in minicnn/explore; here it is only shown.
import { ask, latest } from "/static/asking.js";
import { drawNetwork } from "/static/network.js";
import { clamp, element, movable, percent, place, press, reachable, roving, short, show } from "/static/widgets.js";

const $ = id => document.getElementById(id);
const RULES = { deconv: "Deconvnet", guided: "Guided", gradient: "Gradient" };
const ROWS = 3, SOME_IMAGES = 256;              // of maps shown at first; images seen before top patches are shown
const state = { photo: null, layer: null, unit: null, place: [0, 0], rule: "deconv", chosen: false, searching: false,
                all: false, covering: false, square: [0, 0], projections: {} };
let about, maps, plan, sheet;
const tiles = {};                               // what is compared inside the receptive field
const spatial = () => about.layers[state.layer].shape.length === 3;

// ---- the photograph
async function usePhoto(asked) {
  const found = await asked;
  if (!found) return;
  $("error").hidden = true;
  Object.assign(state, { photo: found.photo, clean: found.guesses, projections: {}, picture: new Image() });
  state.picture.src = found.picture;
  state.truth = found.truth;
  const what = `${found.name}: the central crop of ${about.side} × ${about.side} pixels that the network takes`;
  show($("photo"), found.picture, what);
  show($("seen"), found.picture, what);
  $("photo-caption").textContent = `${what}.`;
  plan.photograph(found.picture);
  showGuesses(found.guesses);
  if (state.covering) cover();
  await useLayer(state.layer);
}

async function upload(file) {
  if (!file) return;
  press($("samples").children, null);
  await usePhoto(ask("photo", { name: file.name }, { method: "POST", body: file }));
}

async function useSample(number, button) {
  press($("samples").children, button);
  await usePhoto(ask("sample", { number }));
}

function showGuesses(guesses, covered = false) {
  const before = new Map(state.clean.map(guess => [guess.label, guess.probability]));
  $("guesses").replaceChildren(...guesses.map(({ label, name, probability }) => {
    const bar = element("i"), was = element("b"), line = element("span", {}, percent(probability));
    bar.style.width = percent(probability).replace(" ", "");
    if (covered && before.has(label)) {
      was.style.left = `calc(${100 * before.get(label)}% - 1px)`;
      line.prepend(element("span", { className: "was" }, `${percent(before.get(label))} → `));
    }
    return element("li", {}, element("div", { className: "line" }, element("span", { className: "name" }, name,
                     ...name === state.truth ? [element("span", { className: "was" }, " · its class")] : []), line),
                   element("div", { className: "bar" }, bar, ...covered && before.has(label) ? [was] : []));
  }));
}

// ---- the square
const side = () => Number($("square").value);

function moveSquare(top, left) {
  state.square = [top, left].map(value => clamp(Math.round(value), 0, about.side - side()));
  const [row, column] = state.square;
  place($("occluder"), [row, column, row + side(), column + side()], about.side);
  $("occluder").setAttribute("aria-label", `Row ${row}, column ${column} of ${about.side}; arrow keys move it`);
  $("square-words").textContent = `${side()} px`;
  if (state.covering) latest("occluded", cover);
}

async function cover() {
  const [top, left] = state.square;
  const found = await ask("occluded", { photo: state.photo, top, left, square: side() });
  if (!found || !state.covering) return;
  showGuesses(found.guesses, true);
  $("cover-caption").textContent = `A square of ${side()} × ${side()} pixels, filled with ${about.fill}, covers rows ${top} to ` +
    `${top + side() - 1}, columns ${left} to ${left + side() - 1}. Line: the probability without it.`;
}

function toggleCover() {
  state.covering = !state.covering;
  $("cover").setAttribute("aria-pressed", state.covering);
  $("stage").classList.toggle("covering", state.covering);
  $("occluder").hidden = $("square").disabled = !state.covering;
  document.querySelector("#stage .field").hidden = state.covering;
  if (state.covering) { moveSquare(...state.square); $("occluder").focus({ preventScroll: true }); return; }
  $("cover-caption").textContent = "";
  showGuesses(state.clean);
}

// ---- the layer
async function useLayer(layer) {
  if (layer !== state.layer) {
    Object.assign(state, { chosen: false, all: false, searching: false });
    $("find").hidden = about.drawn;
    $("top").hidden = $("continue").hidden = $("progress").hidden = true;
    if (!about.drawn) $("top-caption").textContent = "";
  }
  state.layer = layer;
  plan.choose(layer);
  showStages();
  if (!state.photo) return;
  await latest("maps", async () => {
    const found = await ask("maps", { photo: state.photo, layer: state.layer });
    if (!found || found.layer !== state.layer) return;
    maps = found;
    sheet = maps.picture && Object.assign(new Image(), { src: maps.picture });
    if (sheet) await sheet.decode();
    if (!state.chosen) state.unit = maps.order[0];
    showMaps();
    useUnit(state.unit);
  });
}

function showStages() {
  const block = about.blocks.find(one => one.layers.includes(state.layer));
  $("h-layer").textContent = block.layers[0];
  $("stages").hidden = block.layers.length < 2;
  $("stages").replaceChildren(...block.layers.map(name => {
    const button = element("button", { type: "button", onclick: () => useLayer(name) }, name);
    button.setAttribute("aria-pressed", name === state.layer);
    return button;
  }));
}

function showMaps() {
  const order = $("sort").value === "peak" ? maps.order : maps.order.map((_, k) => k);
  $("maps").classList.toggle("units", !spatial());
  const columns = getComputedStyle($("maps")).gridTemplateColumns.split(" ").length;
  const shown = state.all ? order : order.slice(0, ROWS * columns);
  if (!shown.includes(state.unit)) shown.push(state.unit);
  $("maps").replaceChildren(...shown.map(unit => {
    const name = maps.names ? maps.names[unit] : unit;
    const tag = element("span", { className: "tag" }, element("span", {}, String(name)), element("span", {}, short(maps.peaks[unit])));
    const button = element("button", { type: "button", onclick: () => { state.chosen = true; useUnit(unit); } }, tag);
    button.dataset.unit = unit;
    button.setAttribute("aria-label", `${spatial() ? "map" : "unit"} ${name}, largest activation ${maps.peaks[unit]}`);
    if (sheet) button.prepend(drawMap(unit, element("canvas")));
    return button;
  }));
  $("more").hidden = shown.length >= order.length;
  $("more").textContent = `Show all ${order.length.toLocaleString("en")}`;
  $("layer-caption").textContent = `${maps.caption} Beside each number: its largest activation.`;
}

function drawMap(unit, canvas) {
  const [height, width] = maps.shape, row = Math.floor(unit / maps.columns), column = unit % maps.columns;
  Object.assign(canvas, { width, height });
  canvas.style.aspectRatio = `${width} / ${height}`;
  canvas.classList.toggle("pixels", width < 64);
  canvas.getContext("2d").drawImage(sheet, column * width, row * height, width, height, 0, 0, width, height);
  return canvas;
}

// ---- one map, or unit
function useUnit(unit) {
  state.unit = unit;
  const chosen = $("maps").querySelector(`[data-unit="${unit}"]`);
  press($("maps").children, chosen);
  reachable($("maps"), chosen);
  const name = maps.names ? `, ${maps.names[unit]}` : "";
  $("h-unit").textContent = `${state.layer}, ${spatial() ? "map" : "unit"} ${unit}${name}`;
  $("map-figure").hidden = !spatial();
  document.querySelector(".views").classList.toggle("two", !spatial());
  if (spatial()) drawMap(unit, $("map").querySelector("canvas"));
  usePlace(...maps.places[unit]);
  if (state.searching) search();
}

function usePlace(row, column) {
  const [height, width] = spatial() ? maps.shape : [1, 1];
  state.place = [clamp(row, 0, height - 1), clamp(column, 0, width - 1)];
  [row, column] = state.place;
  place($("map").querySelector(".cursor"), [row, column, row + 1, column + 1], height, width);
  $("map").setAttribute("aria-label", `Row ${row}, column ${column} of ${height} × ${width}; arrow keys move it`);
  latest("projection", project);
}

async function project() {
  const asked = { photo: state.photo, layer: state.layer, unit: state.unit, row: state.place[0], column: state.place[1] };
  const current = () => asked.photo === state.photo && asked.layer === state.layer && asked.unit === state.unit &&
    asked.row === state.place[0] && asked.column === state.place[1];
  $("projection").classList.add("stale");
  for (const { canvas } of Object.values(tiles)) canvas.classList.add("stale");
  for (const rule of [state.rule, ...about.rules.filter(one => one !== state.rule)]) {
    const found = await ask("projection", { ...asked, rule });
    if (!found || !current()) return;
    const image = Object.assign(new Image(), { src: found.picture });
    await Promise.all([image.decode(), state.picture.decode()]);
    state.projections[rule] = found;
    if (rule === state.rule) showProjection();
    showInside(tiles.photograph, state.picture, found.box);
    showInside(tiles[rule], image, found.box);
  }
}

function showProjection() {
  const found = state.projections[state.rule];
  if (!found) return;
  for (const field of document.querySelectorAll(".field")) {
    place(field, found.box, about.side);
    field.hidden = state.covering && field.parentElement.id === "stage";
  }
  show($("projection"), found.picture, found.caption);
  $("projection").classList.remove("stale");
  $("projection-name").textContent = `Projection: ${RULES[state.rule]}, activation ${found.value}` +
    (found.empty ? ": nothing reached the pixels" : "");
  $("unit-caption").textContent = found.caption;
}

function showInside({ canvas, name }, image, [top, left, bottom, right]) {
  const [height, width] = [bottom - top, right - left];
  Object.assign(canvas, { width, height });
  canvas.classList.toggle("pixels", width < 80);
  canvas.classList.remove("stale");
  canvas.getContext("2d").drawImage(image, left, top, width, height, 0, 0, width, height);
  canvas.setAttribute("aria-label", `${name}, rows ${top} to ${bottom - 1}, columns ${left} to ${right - 1}`);
}

function useRule(rule) {
  state.rule = rule;
  for (const group of [$("rules"), $("compared")]) press(group.querySelectorAll("button"), group.querySelector(`[data-rule=${rule}]`));
  showProjection();
  if (state.searching) search();
}

// ---- top patches
async function search(until = SOME_IMAGES) {
  state.searching = true;
  $("find").hidden = true;
  await latest("strongest", async () => {
    const asked = { layer: state.layer, unit: state.unit, rule: state.rule, until };
    const current = () => asked.layer === state.layer && asked.unit === state.unit && asked.rule === state.rule;
    let found;
    do {
      found = await ask("strongest", asked);
      if (!found) { state.searching = false; $("find").hidden = false; $("progress").hidden = true; return; }
      Object.assign($("progress"), { hidden: Boolean(found.patches), max: Math.min(until, found.of), value: found.seen });
      if (!found.patches) $("top-caption").textContent = `${found.seen.toLocaleString("en")} of ${$("progress").max.toLocaleString("en")} images seen …`;
    } while (!found.patches && current());
    if (current()) showTop(found);
  });
}

function showTop(found) {
  const pictures = (kind, words) => found.patches.map((one, k) =>
    element("img", { src: one[kind], alt: `${words} ${k + 1} of ${found.patches.length}`, className: "pixels" }));
  $("patches").replaceChildren(...pictures("patch", "Patch"));
  $("patch-projections").replaceChildren(...pictures("projection", "Projection"));
  $("top").hidden = false;
  $("top-caption").textContent = found.caption;
  $("continue").hidden = found.seen >= found.of;
  $("continue").textContent = `See all ${found.of.toLocaleString("en")} images`;
  $("continue").onclick = () => { $("continue").hidden = true; search(found.of); };
}

// ---- the page
function begin() {
  $("title").textContent = `${about.title} · ${about.parameters.toLocaleString("en")} parameters, ${about.classes} classes`;
  Object.assign($("square"), { min: Math.max(1, Math.round(about.side / 28)), max: Math.round(about.side / 2),
                               value: Math.round(about.side * 48 / 224) });
  state.square = [0, 1].map(() => Math.round((about.side - side()) / 2));
  moveSquare(...state.square);
  $("samples").replaceChildren(...about.samples.map(({ number, name, picture }) => {
    const button = element("button", { type: "button" }, element("img", { src: picture, alt: name }));
    button.onclick = () => useSample(number, button);
    return button;
  }));
  $("samples-caption").textContent = about.drawn
    ? `Drawn by a script, no photographs, since the run's images cannot be opened. Drop a photograph anywhere on this page.`
    : "Held-out images of the run. Or drop a photograph anywhere on this page.";
  $("find").hidden = about.drawn;
  if (about.drawn) $("top-caption").textContent = `Top patches are of the run's images, which cannot be opened: ${about.why}`;
  const choosing = (rule, ...content) => {
    const button = element("button", { type: "button", onclick: () => useRule(rule) }, ...content);
    button.dataset.rule = rule;
    return button;
  };
  $("rules").replaceChildren(...about.rules.map(rule => choosing(rule, RULES[rule])));
  $("compared").replaceChildren(...["photograph", ...about.rules].map(rule => {
    const canvas = element("canvas", { className: "crop" }), name = RULES[rule] ?? "Photograph";
    const content = [canvas, element("span", { className: "name" }, name)];
    canvas.setAttribute("role", "img");
    tiles[rule] = { canvas, name };
    return rule in RULES ? choosing(rule, ...content) : element("div", {}, ...content);
  }));
  plan = drawNetwork($("net"), about, name => useLayer(name));
  state.layer = about.layer;
  useRule(state.rule);
  plan.choose(state.layer);
  showStages();
}

// Beside the rest while that is scrolled; where it is higher than the window, by its end.
function stick() {
  const column = document.querySelector(".photograph");
  column.style.top = `${Math.min(20, innerHeight - column.offsetHeight - 20)}px`;
}

function listen() {
  $("file").addEventListener("change", event => { upload(event.target.files[0]); event.target.value = ""; });
  $("cover").addEventListener("click", toggleCover);
  $("square").addEventListener("input", () => moveSquare(...state.square));
  movable($("occluder"), (down, right) => moveSquare(state.square[0] + 4 * down, state.square[1] + 4 * right),
          (y, x) => moveSquare(y * about.side - side() / 2, x * about.side - side() / 2), () => state.covering);
  movable($("map"), (down, right) => usePlace(state.place[0] + down, state.place[1] + right),
          (y, x) => usePlace(Math.floor(y * maps.shape[0]), Math.floor(x * maps.shape[1])));
  $("peak").addEventListener("click", () => usePlace(...maps.places[state.unit]));
  $("sort").addEventListener("change", () => { showMaps(); useUnit(state.unit); });
  $("more").addEventListener("click", () => { state.all = true; showMaps(); useUnit(state.unit); });
  $("find").addEventListener("click", () => search());
  $("error").lastElementChild.addEventListener("click", () => { $("error").hidden = true; });
  roving($("maps"));
  roving($("net"));
  new ResizeObserver(stick).observe(document.querySelector(".photograph"));
  addEventListener("resize", stick);
  let over = 0;
  const dropping = change => { over = Math.max(0, over + change); document.body.classList.toggle("dropping", over > 0); };
  addEventListener("dragenter", event => { if (event.dataTransfer.types.includes("Files")) dropping(1); });
  addEventListener("dragleave", event => { if (event.dataTransfer.types.includes("Files")) dropping(-1); });
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", event => { event.preventDefault(); dropping(-Infinity); upload(event.dataTransfer.files[0]); });
}

about = await ask("about");
if (about) {
  listen();
  begin();
  if (about.samples.length) await useSample(about.samples[0].number, $("samples").firstElementChild);
}
