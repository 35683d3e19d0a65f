// Small parts of the page that know nothing of networks.

export function element(name, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}
export const press = (group, chosen) => { for (const one of group) one.setAttribute("aria-pressed", one === chosen); };
export const short = value => value === 0 || (Math.abs(value) >= .01 && Math.abs(value) < 1e4)
  ? String(Number(value.toPrecision(3))) : value.toExponential(1).replace("e+", "e");
export const percent = value => `${(100 * value).toFixed(1)} %`;
export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export function show(image, address, alt) {
  Object.assign(image, { src: address, alt, hidden: false });
}

export function place(box, [top, left, bottom, right], height, width = height) {
  Object.assign(box.style, { top: `${100 * top / height}%`, left: `${100 * left / width}%`,
                             height: `${100 * (bottom - top) / height}%`, width: `${100 * (right - left) / width}%` });
}

// One button of a group is in the order of the Tab key; the arrow keys move between them.
export function roving(container) {
  container.addEventListener("keydown", event => {
    const all = [...container.querySelectorAll("button:not([hidden])")], at = all.indexOf(document.activeElement);
    const to = { ArrowRight: all[at + 1], ArrowLeft: all[at - 1], Home: all[0], End: all[all.length - 1],
                 ArrowDown: beside(all, at, 1), ArrowUp: beside(all, at, -1) };
    if (at < 0 || !(event.key in to)) return;
    event.preventDefault();
    to[event.key]?.focus();
  });
}
// The nearest one below (way 1) or above (-1).
function beside(all, at, way) {
  const far = one => way * (one.offsetTop - all[at]?.offsetTop), aside = one => Math.abs(one.offsetLeft - all[at]?.offsetLeft);
  return all.filter(one => far(one) > 2).sort((a, b) => 4 * far(a) + aside(a) - 4 * far(b) - aside(b))[0];
}
export function reachable(container, chosen) {
  for (const one of container.querySelectorAll("button")) one.tabIndex = one === chosen ? 0 : -1;
}

// Arrow keys move a position, with Shift faster; a pointer that is held down sets it.
export function movable(box, keys, pointer, active = () => true) {
  box.addEventListener("keydown", event => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    keys(...step.map(way => way * (event.shiftKey ? 4 : 1)));
  });
  const stage = box.classList.contains("stage") ? box : box.parentElement;
  const follow = event => {
    const { left, top, width, height } = stage.getBoundingClientRect();
    pointer((event.clientY - top) / height, (event.clientX - left) / width);
  };
  stage.addEventListener("pointerdown", event => {
    if (event.button || !active()) return;
    stage.setPointerCapture(event.pointerId);
    box.focus({ preventScroll: true });
    follow(event);
    event.preventDefault();
  });
  stage.addEventListener("pointermove", event => { if (event.buttons & 1 && active()) follow(event); });
}
