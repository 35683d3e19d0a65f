// The network as boxes in columns and lanes (minicnn/explore/overview.py), joined by lines. Each box is a button.

const LANE = 80, BOX = 48, LABEL = 18, LETTER = 7, NARROW = 64, WIDE = 84;     // CSS pixels
const SVG = "http://www.w3.org/2000/svg";

// As much of a name's end as fits below a box; the whole name is its title.
function brief(name) {
  const parts = name.split("_");
  while (parts.length > 1 && parts.join("_").length > 10) parts.shift();
  return parts.join("_");
}

export function drawNetwork(container, about, choose) {
  const { blocks, layers, side } = about;
  const flat = Math.max(1, ...blocks.filter(one => one.shape.length === 1).map(one => one.shape[0]));
  const most = Math.max(1, ...blocks.filter(one => one.shape.length === 3).map(one => one.shape[2]));
  const size = shape => shape.length === 1
    ? [7, 12 + (BOX - 12) * Math.sqrt(shape[0] / flat)]
    : [7 + 25 * Math.sqrt(shape[2] / most), 7 + (BOX - 7) * Math.min(1, Math.sqrt(shape[0] / side) * 1.3)];
  const columns = 2 + Math.max(...blocks.map(one => one.column));                           // the first is the photograph's
  const longest = LETTER * Math.max(...blocks.map(one => brief(one.layers[0]).length)) + 4;
  const COLUMN = Math.max(NARROW, longest, Math.min(WIDE, Math.floor((container.clientWidth - 8) / columns)));
  const x = column => (column + 1.5) * COLUMN, y = lane => lane * LANE + BOX / 2 + 4;
  const width = columns * COLUMN, height = Math.max(...blocks.map(one => one.lane)) * LANE + BOX + 8 + LABEL;

  const lines = document.createElementNS(SVG, "svg");
  lines.setAttribute("width", width);
  lines.setAttribute("height", height);
  lines.setAttribute("aria-hidden", "true");
  const draw = (from, to, start, end) => {
    const path = document.createElementNS(SVG, "path"), bend = Math.min(COLUMN / 2, (end - start) / 2);
    path.setAttribute("d", from === to ? `M${start} ${from}H${end}` : from < to
      ? `M${start} ${from}C${start + bend} ${from} ${start + bend - 8} ${to} ${start + 2 * bend} ${to}H${end}`
      : `M${start} ${from}H${end - 2 * bend}C${end - bend} ${from} ${end - bend} ${to} ${end} ${to}`);
    lines.append(path);
  };
  const plan = document.createElement("div");
  plan.className = "plan";
  Object.assign(plan.style, { width: `${width}px`, height: `${height}px` });
  const image = document.createElement("img");
  Object.assign(image, { alt: "", hidden: true, width: BOX, height: BOX });
  Object.assign(image.style, { left: `${COLUMN / 2 - BOX / 2}px`, top: `${y(0) - BOX / 2}px` });
  plan.append(lines, image);

  const buttons = blocks.map(block => {
    const [wide, tall] = size(block.shape);
    for (const k of block.inputs) {
      const from = k < 0 ? null : blocks[k];
      draw(y(from ? from.lane : 0), y(block.lane), from ? x(from.column) + size(from.shape)[0] / 2 + 3 : COLUMN / 2 + BOX / 2 + 3,
           x(block.column) - wide / 2 - 3);
    }
    const button = document.createElement("button"), box = document.createElement("span"), label = document.createElement("span");
    const first = block.layers[0], last = block.layers[block.layers.length - 1];
    const picture = document.createElement("i");
    Object.assign(picture.style, { width: `${wide}px`, height: `${tall}px` });
    box.className = "box";
    box.append(picture);
    label.className = "label";
    label.textContent = brief(first);
    button.type = "button";
    button.className = /^(Conv|Linear|Local)/.test(layers[first].kind) ? "weights" : "other";
    button.title = `${block.layers.join(", ")}: ${block.shape.join(" × ")}`;
    button.setAttribute("aria-label", button.title);
    Object.assign(button.style, { left: `${x(block.column) - COLUMN / 2}px`, top: `${y(block.lane) - BOX / 2 - 4}px`,
                                  width: `${COLUMN}px`, height: `${BOX + 8 + LABEL}px` });
    button.append(box, label);
    button.onclick = () => choose(last);
    plan.append(button);
    return button;
  });
  container.replaceChildren(plan);

  return {
    photograph(address) { Object.assign(image, { src: address, hidden: false }); },
    choose(layer) {
      buttons.forEach((button, k) => {
        const chosen = blocks[k].layers.includes(layer);
        button.setAttribute("aria-pressed", chosen);
        button.tabIndex = chosen ? 0 : -1;
        if (!chosen) return;
        const left = button.offsetLeft, right = left + button.offsetWidth;
        if (left < container.scrollLeft || right > container.scrollLeft + container.clientWidth)
          container.scrollLeft = left - container.clientWidth / 2;
      });
    },
  };
}
