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
  let field = null; // while a number is typed: its input, and the bar it is for

  const held = () => [...model.get("rows")[shown], model.get("elsewhere")[shown]];

  const bar = node("div", "wb-blocks-bar");
  const tabs = node("div", "wb-blocks-tabs");
  const tools = node("div", "wb-blocks-tabs");
  const presets = node("select", "wb-blocks-presets");
  presets.title = "Give all blocks a shape";
  presets.setAttribute("aria-label", "shapes and presets");
  presets.append(new Option("preset …", ""), ...model.get("presets").map((name) => new Option(name, name)));
  if (model.get("named").length) {
    const group = document.createElement("optgroup");
    group.label = "Merge Block Weighted";
    group.append(...model.get("named").map((name) => new Option(name, `text ${name}`)));
    presets.append(group);
  }
  const column = node("div", "wb-blocks-column");
  const hint = node("div", "wb-blocks-hint");
  const legend = node("div", "wb-blocks-legend");
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
  el.append(bar, column, legend, hint, typing);

  const rows = places.map((name, i) => {
    const row = node("div", i === blocks.length ? "wb-block wb-block-other" : "wb-block");
    const track = node("div", "wb-block-track");
    const line = node("div", "wb-block-zero");
    const fill = node("div", "wb-block-fill");
    const swatch = node("span", "wb-block-swatch");
    const readout = node("span", "wb-block-value");
    const effect = node("span", "wb-block-effect");
    line.style.left = `${100 * zero}%`;
    track.append(fill, line);
    row.append(node("span", "wb-block-name", name), swatch, track, readout, effect);
    row.tabIndex = 0;
    for (const [key, value] of Object.entries({ role: "slider", "aria-label": name, "aria-valuemin": low, "aria-valuemax": high })) row.setAttribute(key, value);
    row.addEventListener("keydown", (event) => keyed(event, i));
    column.append(row);
    return { row, track, fill, readout, swatch, effect };
  });

  function show() {
    const values = stroke?.values ?? held();
    const effects = model.get("effects_of") === shown ? model.get("effects") : {};
    el.classList.toggle("wb-mapped", "places" in effects);
    rows.forEach(({ row, fill, readout, swatch, effect }, i) => {
      const [from, to] = [zero, share(values[i])].sort((a, b) => a - b);
      const found = effects.places?.[i];
      fill.style.left = `${100 * from}%`;
      fill.style.width = `${100 * (to - from)}%`;
      readout.textContent = values[i].toFixed(decimals);
      row.setAttribute("aria-valuenow", values[i]);
      row.setAttribute("aria-valuetext", `${+values[i].toFixed(6)}${found ? `; ${found.told}` : ""}`);
      const what = i === blocks.length ? "Tensors in no block: text encoder, VAE, time embedding" : places[i];
      row.title = `${what}\n${found ? `${found.told}\n` : ""}Drag, or type a number`;
      effect.textContent = found?.effect ?? "";
      swatch.classList.toggle("wb-unknown", Boolean(found) && !found.known);
      row.style.setProperty("--wb-effect", found?.known ? found.colour : "");
    });
    [...tabs.children].forEach((tab, i) => (tab.classList.toggle("wb-chosen", i === shown), tab.setAttribute("aria-pressed", i === shown)));
    [...tools.children].forEach((one) => (one.classList.toggle("wb-chosen", one.textContent === tool), one.setAttribute("aria-pressed", one.textContent === tool)));
    if (document.activeElement !== text) text.value = model.get("texts")[shown];
    hint.textContent = tool === "paint" ? "Drag over the bars to paint them, or type a number." : "Drag from the first block to the last.";
    explain(effects);
  }

  // What the colours of a block map mean; nothing where there is none.
  function explain(effects) {
    legend.replaceChildren();
    if (!("places" in effects)) return;
    const scale = node("span", "wb-blocks-scale");
    scale.style.background = `linear-gradient(to right, ${effects.scale.join(", ")})`;
    const unknown = node("span", "wb-block-swatch wb-unknown");
    const last = node("span", "");
    last.append(unknown, " not measured");
    legend.append(node("div", "", effects.title), node("span", "", effects.least), scale, node("span", "", effects.most), last);
  }

  function choices(parent, names, choose, shorter = names) {
    names.forEach((name, i) => {
      const button = node("button", "wb-blocks-tab", shorter[i]);
      button.title = name;
      button.addEventListener("click", () => { choose(name, i); show(); });
      parent.append(button);
    });
  }
  choices(tabs, model.get("series"), (_, i) => { shut(false); shown = i; }, model.get("short"));
  choices(tools, ["paint", "ramp"], (name) => { tool = name; });

  function tell(kind, more) {
    model.send({ kind, series: shown, ...more });
  }

  function painted(values) {
    tell("painted", { values: values.slice(0, -1), elsewhere: values.at(-1) });
  }

  function keyed(event, i) {
    if (field) return; // its keys are its own
    const turn = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity }[event.key];
    const next = rows[i + ({ ArrowUp: -1, ArrowDown: 1 }[event.key] ?? 0)];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (turn) painted(held().map((value, at) => (at === i ? Math.min(Math.max(value + turn * step, low), high) : value)));
    else if (next && next !== rows[i]) next.row.focus();
    else if (/^[0-9.,+-]$/.test(event.key)) open(i, event.key);
    else if (event.key === "Enter") open(i, null);
    else return;
    event.preventDefault();
  }

  // A field in place of a bar's number, which begins with what was typed, or with the number, marked.
  function open(i, begun) {
    if (field) shut(true);
    const input = node("input", "wb-block-typed");
    input.value = begun ?? String(+held()[i].toFixed(6));
    input.setAttribute("aria-label", `${places[i]}: a number`);
    input.inputMode = "decimal";
    field = { input, i, before: begun === null ? input.value : "" };
    rows[i].readout.after(input);
    rows[i].readout.style.display = "none";
    input.focus();
    if (begun === null) input.select();
    input.addEventListener("keydown", (event) => {
      const on = { Enter: 0, Tab: event.shiftKey ? -1 : 1 }[event.key];
      if (event.key !== "Escape" && on === undefined) return event.stopPropagation();
      event.preventDefault();
      event.stopPropagation();
      shut(event.key !== "Escape");
      const beside = i + (on ?? 0);
      if (on && rows[beside]) open(beside, null);
      else rows[i].row.focus();
    });
    input.addEventListener("blur", () => shut(true));
  }

  // Take the field away; what was typed counts, or does not.
  function shut(counts) {
    if (!field) return;
    const { input, i, before } = field;
    const typed = input.value.trim();
    field = null;
    rows[i].readout.style.display = "";
    input.remove();
    if (counts && typed && typed !== before) tell("typed", { place: i, text: typed });
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
    if (event.button !== 0 || event.target.closest("input")) return;
    shut(true);
    const here = under(event);
    const still = Boolean(event.target.closest(".wb-block-value, .wb-block-name, .wb-block-effect")); // a click beside a bar only chooses it
    const [x, y] = [event.clientX, event.clientY];
    stroke = { first: here, last: here, values: still ? held() : between(held(), here, here), still, x, y };
    column.setPointerCapture(event.pointerId);
    event.preventDefault();
    rows[here.at].row.focus({ preventScroll: true });
    show();
  });
  column.addEventListener("pointermove", (event) => {
    if (!stroke || (stroke.still && Math.hypot(event.clientX - stroke.x, event.clientY - stroke.y) < 4)) return;
    const here = under(event);
    stroke.still = false;
    stroke.values = tool === "ramp" ? ramp(stroke.first, here) : between(stroke.values, stroke.last, here);
    stroke.last = here;
    show();
  });
  column.addEventListener("pointerup", () => {
    if (!stroke) return;
    const { first, last, values, still } = stroke;
    if (still) show();
    else if (tool === "ramp") tell("ramp", { ends: [first.at, last.at], values: [first.value, last.value] });
    else painted(values);
    stroke = null;
  });
  column.addEventListener("dblclick", (event) => {
    const at = rows.findIndex(({ row }) => event.clientY < row.getBoundingClientRect().bottom); // while the column has captured the mouse
    if (at >= 0 && !event.target.closest("input")) open(at, null);
  });
  column.addEventListener("pointercancel", () => { stroke = null; show(); });
  text.addEventListener("change", () => tell("text", { text: text.value }));
  text.addEventListener("keydown", (event) => { if (event.key === "Enter") text.blur(); });
  copy.addEventListener("click", () => { text.select(); document.execCommand("copy"); });
  presets.addEventListener("change", () => {
    const [kind, name] = presets.value.split(" ");
    if (kind === "text" && name) tell("text", { text: name });
    else if (presets.value) tell("preset", { name: presets.value });
    presets.value = "";
  });

  const watched = ["rows", "elsewhere", "texts", "effects", "effects_of"].map((name) => `change:${name}`);
  watched.forEach((name) => model.on(name, show));
  show();
  return () => watched.forEach((name) => model.off(name, show));
}

export default { render };
