// Two pictures under one slider. All state is the model's (compare_panel.py); here it is drawn, and moved by hand.

const TALLEST = 512; // CSS pixels of a picture that fits
const GAP = 8; // between pictures side by side
const GRIP = 14; // how near the curtain the pointer takes hold of it
const STRIDE = 1.5; // of one step of zoom
// the views, and what the one slider moves in each
const VIEWS = {
  curtain: { state: "position", label: "curtain", min: 0, max: 1, step: 0.01, text: (value) => `${Math.round(100 * value)} %` },
  "side by side": null,
  flicker: { state: "pace", label: "each for", min: 0.2, max: 2, step: 0.1, text: (value) => `${value.toFixed(1)} s` },
  difference: { state: "gain", label: "times", min: 1, max: 64, step: 1, text: (value) => `× ${value}` },
};

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// An element; what takes the focus keeps its keys from the notebook's shortcuts ("d d" deletes a cell).
function make(tag, parent, properties = {}, text = "") {
  const element = Object.assign(document.createElement(tag), properties);
  if (["BUTTON", "CANVAS", "INPUT", "SELECT"].includes(element.tagName)) element.dataset.lmSuppressShortcuts = "true";
  element.append(text);
  parent.append(element);
  return element;
}

function menu(parent, label, options, chosen, choose) {
  const wrap = make("label", parent);
  make("span", wrap, {}, label);
  const select = make("select", wrap, { onchange: () => choose(select.selectedIndex) });
  options.forEach((option) => make("option", select, {}, option));
  return () => (select.selectedIndex = chosen());
}

function menus(row, model, set) {
  const names = model.get("names");
  const side = (side) => menu(row, side, names, () => names.indexOf(model.get(side)), (index) => set({ [side]: names[index] }));
  const updates = [side("left"), side("right")];
  model.get("axes").forEach(([axis, labels], number) => {
    if (labels.length === 1) return;
    const choose = (index) => set({ place: model.get("place").with(number, index) });
    updates.push(menu(row, axis, labels, () => model.get("place")[number], choose));
  });
  return () => updates.forEach((update) => update());
}

function viewChoice(row, model, set) {
  const views = make("fieldset", row, { className: "views", ariaLabel: "view" });
  const name = `wb-view-${Math.random()}`;
  const radios = Object.keys(VIEWS).map((view) => {
    const label = make("label", views);
    const radio = make("input", label, { type: "radio", name, value: view, onchange: () => set({ view }) });
    make("span", label, {}, view);
    return radio;
  });
  return () => radios.forEach((radio) => (radio.checked = radio.value === model.get("view")));
}

function slider(row, model, set) {
  const wrap = make("label", row);
  const label = make("span", wrap);
  const range = make("input", wrap, { type: "range" });
  const told = make("output", wrap);
  range.oninput = () => set({ [VIEWS[model.get("view")].state]: Number(range.value) });
  return () => {
    const kind = VIEWS[model.get("view")];
    wrap.hidden = !kind;
    if (!kind) return;
    Object.assign(range, { min: kind.min, max: kind.max, step: kind.step, value: model.get(kind.state) });
    label.textContent = kind.label;
    told.textContent = kind.text(model.get(kind.state));
  };
}

function zoomButtons(row, model, stage) {
  const wrap = make("div", row, { className: "zoom" });
  const button = (text, title, zoom) => make("button", wrap, { ariaLabel: title, title, onclick: () => stage.zoomTo(zoom()) }, text);
  button("−", "zoom out", () => model.get("zoom") / STRIDE);
  const told = make("output", wrap);
  button("+", "zoom in", () => model.get("zoom") * STRIDE);
  button("fit", "show the whole picture", () => 1);
  return () => (told.textContent = `${Math.round(100 * model.get("zoom"))} %`);
}

// The difference of two pictures, times `gain`, as a canvas of the larger one's size; and what it comes to in words.
function difference(images, gain) {
  const [width, height] = ["width", "height"].map((side) => Math.max(...images.map((image) => image[side])));
  const [first, second] = images.map((image) => {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = false;
    context.drawImage(image, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  });
  let [sum, most, differing] = [0, 0, 0];
  for (let at = 0; at < first.data.length; at += 4) {
    let largest = 0;
    for (let channel = at; channel < at + 3; channel++) {
      const distance = Math.abs(first.data[channel] - second.data[channel]);
      first.data[channel] = gain * distance; // clamped to 255 by the array
      sum += distance;
      largest = Math.max(largest, distance);
    }
    most = Math.max(most, largest);
    differing += largest > 0;
  }
  const image = new OffscreenCanvas(width, height);
  image.getContext("2d").putImageData(first, 0, 0);
  const count = width * height;
  const share = `${((100 * differing) / count).toFixed(1)} % of the pixels differ (${differing} of ${count})`;
  return { image, gain, words: `${share}; by ${(sum / (3 * count)).toFixed(2)} of 255 in the mean, ${most} at most` };
}

// Where on the canvas, in CSS pixels, each picture is shown.
function boxes(images, view, room) {
  const shape = images[0].width / images[0].height;
  const count = view === "side by side" ? 2 : 1;
  const width = Math.floor(Math.min((room - GAP * (count - 1)) / count, TALLEST * shape));
  const height = Math.round(width / shape);
  return Array.from({ length: count }, (_, index) => ({ x: index * (width + GAP), y: 0, width, height }));
}

function curtain(context, box, position) {
  const x = box.x + position * box.width;
  context.fillStyle = "#fff";
  context.strokeStyle = "rgb(0 0 0 / 0.6)";
  context.fillRect(x - 1, 0, 2, box.height);
  context.strokeRect(x - 1.5, -1, 3, box.height + 2);
  context.beginPath();
  context.arc(x, box.height / 2, 7, 0, 2 * Math.PI);
  context.fill();
  context.stroke();
}

// The canvas, and the hand on it. The picture's middle is `centre`, in shares of its width and height.
class Stage {
  constructor(root, model, set) {
    Object.assign(this, { model, set, images: [], room: 0, second: false });
    const stage = make("div", root, { className: "stage" });
    this.canvas = make("canvas", stage, { tabIndex: 0, role: "img" });
    this.names = [make("div", stage, { className: "name" }), make("div", stage, { className: "name" })];
    this.told = make("div", root, { className: "told", role: "status" });
    this.canvas.onpointerdown = (event) => this.grab(event);
    this.canvas.onkeydown = (event) => this.press(event);
    this.canvas.ondblclick = () => this.zoomTo(1);
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  async load() {
    const pictures = (this.loading = this.model.get("pictures"));
    const images = await Promise.all(pictures.map((bytes) => createImageBitmap(new Blob([bytes], { type: "image/png" }))));
    if (this.loading !== pictures) return; // newer ones have come
    Object.assign(this, { images, shown: [this.model.get("left"), this.model.get("right")], different: null });
    this.draw();
  }

  // Flicker's clock, which runs in that view alone.
  keepTime() {
    clearInterval(this.timer);
    const turn = () => Object.assign(this, { second: !this.second }).draw();
    if (this.model.get("view") === "flicker") this.timer = setInterval(turn, 1000 * this.model.get("pace"));
  }

  draw() {
    if (!this.images.length || !this.room) return;
    const view = this.model.get("view");
    this.boxes = boxes(this.images, view, this.room);
    const last = this.boxes.at(-1);
    const [width, height] = [last.x + last.width, last.height];
    const cursor = this.model.get("zoom") > 1 ? "grab" : view === "curtain" ? "ew-resize" : "default";
    Object.assign(this.canvas, { width: width * devicePixelRatio, height: height * devicePixelRatio });
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px`, cursor });
    this.context = this.canvas.getContext("2d");
    this.context.scale(devicePixelRatio, devicePixelRatio);
    this.drawView(view);
    this.label(view);
  }

  drawView(view) {
    const [box] = this.boxes;
    const [position, gain] = [this.model.get("position"), this.model.get("gain")];
    if (view === "curtain") {
      this.paint(this.images[0], box, 0, position);
      this.paint(this.images[1], box, position, 1);
      curtain(this.context, box, position);
    } else if (view === "side by side") {
      this.boxes.forEach((each, index) => this.paint(this.images[index], each));
    } else if (view === "flicker") {
      this.paint(this.images[Number(this.second)], box);
    } else {
      if (this.different?.gain !== gain) this.different = difference(this.images, gain);
      this.paint(this.different.image, box);
    }
    this.told.textContent = view === "difference" ? this.different.words : "";
  }

  // A picture in its box, of which the part between two shares of the width is shown.
  paint(image, box, from = 0, to = 1) {
    const { context, model } = this;
    const [[across, down], zoom] = [model.get("centre"), model.get("zoom")];
    const [width, height] = [box.width * zoom, box.height * zoom];
    context.save();
    context.beginPath();
    context.rect(box.x + from * box.width, 0, (to - from) * box.width, box.height);
    context.clip();
    context.imageSmoothingEnabled = width * devicePixelRatio < image.width; // enlarged pictures show their pixels
    context.imageSmoothingQuality = "high";
    context.drawImage(image, box.x + box.width / 2 - across * width, box.height / 2 - down * height, width, height);
    context.restore();
  }

  label(view) {
    const [left, right] = this.shown;
    const alone = { flicker: this.second ? ["", right] : [left, ""], difference: [`|${left} − ${right}|`, ""] };
    const words = alone[view] ?? [left, right];
    this.names.forEach((name, index) => {
      Object.assign(name, { textContent: words[index], title: words[index], hidden: !words[index] });
      name.classList.toggle("alone", !words[1 - index]);
    });
    Object.assign(this.names[1].style, view === "side by side" ? { left: `${this.boxes[1].x + 8}px`, right: "auto" } : { left: "", right: "" });
    this.canvas.ariaLabel = `${left} and ${right}, ${view}; arrows pan, plus and minus zoom, 0 shows the whole picture`;
  }

  look(zoom, [across, down]) {
    const margin = 0.5 / zoom;
    this.set({ zoom, centre: [clamp(across, margin, 1 - margin), clamp(down, margin, 1 - margin)] });
  }

  // Zooms, keeping in place what is under `at`: by default the middle.
  zoomTo(wanted, at = [0, 0]) {
    const [before, centre] = [this.model.get("zoom"), this.model.get("centre")];
    const zoom = clamp(wanted, 1, 32);
    this.look(zoom, centre.map((middle, axis) => middle + at[axis] * (1 / before - 1 / zoom)));
  }

  pan(across, down) {
    const [zoom, centre] = [this.model.get("zoom"), this.model.get("centre")];
    this.look(zoom, [centre[0] + across / zoom, centre[1] + down / zoom]);
  }

  // The pointer, from the middle of its box, as shares of the box's size.
  pointer(event) {
    const box = this.boxes.findLast(({ x }) => event.offsetX >= x) ?? this.boxes[0];
    return [(event.offsetX - box.x) / box.width - 0.5, event.offsetY / box.height - 0.5];
  }

  // Takes hold of the curtain, where it is near or nothing can be panned; else of the picture.
  grab(event) {
    const { model, canvas } = this;
    let [from, at] = this.pointer(event);
    const near = Math.abs(from + 0.5 - model.get("position")) * this.boxes[0].width < GRIP;
    const pull = model.get("view") === "curtain" && (near || model.get("zoom") === 1);
    const move = (moved) => {
      const [x, y] = this.pointer(moved);
      if (pull) this.set({ position: clamp(x + 0.5, 0, 1) });
      else this.pan(from - x, at - y);
      [from, at] = [x, y];
    };
    canvas.setPointerCapture(event.pointerId);
    canvas.onpointermove = move;
    canvas.onlostpointercapture = () => (canvas.onpointermove = null);
    if (pull) move(event);
  }

  // A notebook scrolls under the wheel; pictures zoom once they have been clicked, or with the control key.
  wheel(event) {
    if (!event.ctrlKey && document.activeElement !== this.canvas) return;
    event.preventDefault();
    this.zoomTo(this.model.get("zoom") * 2 ** (-event.deltaY / 300), this.pointer(event));
  }

  press(event) {
    const zooms = { "+": STRIDE, "=": STRIDE, "-": 1 / STRIDE, 0: 0 };
    const pans = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (event.ctrlKey || event.metaKey || !(event.key in zooms || event.key in pans)) return;
    event.preventDefault();
    if (event.key in zooms) this.zoomTo(this.model.get("zoom") * zooms[event.key]);
    else this.pan(...pans[event.key]);
  }
}

function render({ model, el }) {
  const set = (state) => {
    Object.entries(state).forEach(([name, value]) => model.set(name, value));
    model.save_changes();
  };
  const root = make("div", el, { className: "wb-compare" });
  const [choose, look] = [make("div", root, { className: "row" }), make("div", root, { className: "row" })];
  const stage = new Stage(root, model, set);
  const updates = [menus(choose, model, set), viewChoice(look, model, set), slider(look, model, set), zoomButtons(look, model, stage)];
  const update = () => {
    updates.forEach((each) => each());
    stage.draw();
  };
  const watcher = new ResizeObserver(([{ contentRect }]) => Object.assign(stage, { room: contentRect.width }).draw());
  watcher.observe(root);
  model.on("change", update);
  model.on("change:view change:pace", () => stage.keepTime());
  model.on("change:pictures", () => stage.load());
  update();
  stage.keepTime();
  stage.load();
  return () => {
    clearInterval(stage.timer);
    watcher.disconnect();
  };
}

export default { render };
