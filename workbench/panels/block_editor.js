// Draws a model as its column of blocks, one bar each, and tells Python what a person drew. What it means is Python's.

function node(tag, classes, text = "") {
  const made = document.createElement(tag);
  made.className = classes;
  made.textContent = text;
  made.dataset.lmSuppressShortcuts = "true"; // keys typed here are not for JupyterLab, which asks the element that has the focus
  return made;
}

function render({ model, el }) {
  const { low, high, step } = model.get("bounds");
  const blocks = model.get("blocks");
  const decimals = (String(step).split(".")[1] ?? "").length;
  const places = [...blocks, "other"]; // the last bar is for all tensors in no block
  const share = (value) => (Math.min(Math.max(value, low), high) - low) / (high - low);
  const zero = share(0);
  let shown = 0; // the series that is edited
  let tool = "paint";
  let stroke = null; // while the mouse is down: where it began, where it was last, and the values drawn so far

  const held = () => [...model.get("rows")[shown], model.get("elsewhere")[shown]];

  const bar = node("div", "wb-blocks-bar");
  const tabs = node("div", "wb-blocks-tabs");
  const tools = node("div", "wb-blocks-tabs");
  const presets = node("select", "wb-blocks-presets");
  presets.title = "Give all blocks a shape";
  presets.append(new Option("preset …", ""), ...model.get("presets").map((name) => new Option(name, name)));
  const column = node("div", "wb-blocks-column");
  const hint = node("div", "wb-blocks-hint");
  const typing = node("div", "wb-blocks-bar");
  const text = node("input", "wb-blocks-text");
  const copy = node("button", "wb-blocks-tab", "copy");
  text.title = "Weights as they are shared: BASE and the blocks in order, with commas; or a preset's name, or 0..1..0 for a curve";
  text.setAttribute("aria-label", "weights as text");
  copy.title = "Copy the weights as text";
  typing.append(text, copy);
  bar.append(tools, presets);
  el.classList.add("wb-blocks");
  el.style.setProperty("--wb-name", `${Math.max(...places.map((name) => name.length))}ch`);
  if (model.get("series").length > 1) el.append(tabs);
  el.append(bar, column, hint, typing);

  const rows = places.map((name, i) => {
    const row = node("div", i === blocks.length ? "wb-block wb-block-other" : "wb-block");
    const track = node("div", "wb-block-track");
    const line = node("div", "wb-block-zero");
    const fill = node("div", "wb-block-fill");
    const readout = node("span", "wb-block-value");
    line.style.left = `${100 * zero}%`;
    track.append(fill, line);
    row.append(node("span", "wb-block-name", name), track, readout);
    row.tabIndex = i ? -1 : 0;
    row.setAttribute("role", "slider");
    row.setAttribute("aria-label", name);
    row.title = i === blocks.length ? "Tensors in no block: text encoder, VAE, time embedding" : "";
    row.addEventListener("keydown", (event) => typed(event, i));
    column.append(row);
    return { row, track, fill, readout };
  });

  function show() {
    const values = stroke?.values ?? held();
    rows.forEach(({ row, fill, readout }, i) => {
      const [from, to] = [zero, share(values[i])].sort((a, b) => a - b);
      fill.style.left = `${100 * from}%`;
      fill.style.width = `${100 * (to - from)}%`;
      readout.textContent = values[i].toFixed(decimals);
      row.setAttribute("aria-valuenow", values[i]);
    });
    [...tabs.children].forEach((tab, i) => tab.classList.toggle("wb-chosen", i === shown));
    [...tools.children].forEach((one) => one.classList.toggle("wb-chosen", one.textContent === tool));
    if (document.activeElement !== text) text.value = model.get("texts")[shown];
    hint.textContent = tool === "paint" ? "Drag over the bars to paint them." : "Drag from the first block to the last.";
  }

  function choices(parent, names, choose) {
    names.forEach((name, i) => {
      const button = node("button", "wb-blocks-tab", name);
      button.title = name;
      button.addEventListener("click", () => { choose(name, i); show(); });
      parent.append(button);
    });
  }
  choices(tabs, model.get("series"), (_, i) => { shown = i; });
  choices(tools, ["paint", "ramp"], (name) => { tool = name; });

  function tell(kind, more) {
    model.send({ kind, series: shown, ...more });
  }

  function painted(values) {
    tell("painted", { values: values.slice(0, -1), elsewhere: values.at(-1) });
  }

  function typed(event, i) {
    const turn = { ArrowLeft: -step, ArrowRight: step }[event.key];
    const next = rows[i + ({ ArrowUp: -1, ArrowDown: 1 }[event.key] ?? 0)];
    if (turn) painted(held().map((value, at) => (at === i ? Math.min(Math.max(value + turn, low), high) : value)));
    else if (next && next !== rows[i]) next.row.focus();
    else return;
    event.preventDefault();
  }

  // The row and the value under the mouse; a ramp has no end in "other".
  function under(event) {
    const heights = rows.map(({ row }) => row.getBoundingClientRect());
    const last = tool === "ramp" ? blocks.length - 1 : places.length - 1;
    let at = heights.findIndex((box) => event.clientY < box.bottom);
    at = at < 0 ? last : Math.min(at, last);
    const track = rows[at].track.getBoundingClientRect();
    const along = Math.min(Math.max((event.clientX - track.left) / track.width, 0), 1);
    return { at, value: Math.round((low + along * (high - low)) / step) * step };
  }

  // Values between two places lie on a line between theirs.
  function between(values, from, to) {
    const [a, b] = from.at <= to.at ? [from, to] : [to, from];
    return values.map((value, i) =>
      i < a.at || i > b.at ? value : a.at === b.at ? to.value : a.value + ((b.value - a.value) * (i - a.at)) / (b.at - a.at));
  }

  function ramp(from, to) {
    const [a, b] = from.at <= to.at ? [from, to] : [to, from];
    const inside = between(held(), from, to);
    return inside.map((value, i) => (i === blocks.length ? value : i < a.at ? a.value : i > b.at ? b.value : value));
  }

  column.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const here = under(event);
    stroke = { first: here, last: here, values: between(held(), here, here) };
    column.setPointerCapture(event.pointerId);
    event.preventDefault();
    rows[here.at].row.focus({ preventScroll: true });
    show();
  });
  column.addEventListener("pointermove", (event) => {
    if (!stroke) return;
    const here = under(event);
    stroke.values = tool === "ramp" ? ramp(stroke.first, here) : between(stroke.values, stroke.last, here);
    stroke.last = here;
    show();
  });
  column.addEventListener("pointerup", () => {
    if (!stroke) return;
    const { first, last, values } = stroke;
    if (tool === "ramp") tell("ramp", { ends: [first.at, last.at], values: [first.value, last.value] });
    else painted(values);
    stroke = null;
  });
  column.addEventListener("pointercancel", () => { stroke = null; show(); });
  text.addEventListener("change", () => tell("text", { text: text.value }));
  text.addEventListener("keydown", (event) => { if (event.key === "Enter") text.blur(); });
  copy.addEventListener("click", () => { text.select(); document.execCommand("copy"); });
  presets.addEventListener("change", () => {
    if (presets.value) tell("preset", { name: presets.value });
    presets.value = "";
  });

  model.on("change:rows", show);
  model.on("change:elsewhere", show);
  model.on("change:texts", show);
  show();
  return () => {
    model.off("change:rows", show);
    model.off("change:elsewhere", show);
    model.off("change:texts", show);
  };
}

export default { render };
