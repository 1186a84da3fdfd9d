// The grid of a queued sweep, and a heat map of its scores. All state is the model's (sweep_grid.py); here it is drawn, and asked for.

// An element; what takes the focus keeps its keys from the notebook's shortcuts.
function make(tag, parent, properties = {}, text = "") {
  const element = Object.assign(document.createElement(tag), properties);
  if (["BUTTON", "SELECT"].includes(element.tagName)) element.dataset.lmSuppressShortcuts = "true";
  element.append(text);
  parent.append(element);
  return element;
}

// A table for each facet; `fill(cell, number)` puts something into each of its cells.
function tables(parent, facets, axes, fill) {
  for (const facet of facets) {
    if (facet.title) make("h4", parent, {}, facet.title);
    const table = make("table", make("div", parent, { className: "scroll" }));
    const head = make("tr", make("thead", table));
    make("th", head, { className: "corner" }, axes[1] ? `${axes[1]} ↓ ${axes[0]} →` : `${axes[0]} →`);
    for (const name of facet.columns) make("th", head, { scope: "col", title: name }, name);
    const body = make("tbody", table);
    facet.cells.forEach((cells, row) => {
      const line = make("tr", body);
      make("th", line, { scope: "row", title: facet.rows[row] }, facet.rows[row]);
      for (const number of cells) fill(make("td", line), number);
    });
  }
}

const shown = (value) => (Math.abs(value) >= 10 ? value.toFixed(1) : Math.abs(value) >= 1 ? value.toFixed(2) : value.toFixed(3));

function heat(box, model, take) {
  box.replaceChildren();
  const column = model.get("column");
  const values = model.get("scores")[column];
  box.hidden = !values;
  if (!values) return;
  const known = values.filter((value) => value !== null);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  tables(box, model.get("facets"), model.get("axes"), (cell, number) => {
    const value = values[number];
    const told = model.get("told")[number];
    const button = make("button", cell, { className: "number", disabled: value === null, title: told.name, onclick: () => take(number) }, value === null ? "–" : shown(value));
    const share = value === null || high === low ? 0 : (value - low) / (high - low);
    if (value !== null) button.style.background = `color-mix(in srgb, var(--accent) ${Math.round(8 + 62 * share)}%, var(--paper))`;
  });
  if (known.length) make("p", box, {}, `${column}: mean of each cell, ${shown(low)} to ${shown(high)}`);
}

function render({ model, el }) {
  el.classList.add("wb-sweep");
  const take = (cell) => model.send({ do: "take", cell });
  const head = make("div", el, { className: "head" });
  const title = make("b", head);
  const label = make("label", head, {}, "scores ");
  const menu = make("select", label, { onchange: () => (model.set("column", menu.value), model.save_changes()) });
  make("button", head, { title: "put the grid away; the job stays in the queue", onclick: () => model.send({ do: "close" }) }, "✕");
  const both = make("div", el, { className: "both" });
  const grid = make("div", both, { className: "grid" });
  const map = make("div", both, { className: "heat" });
  const said = make("p", el, { className: "said", role: "status" });
  let addresses = new Map(); // cell -> address of its picture
  let buttons = new Map();

  const picture = (number) => {
    const button = buttons.get(number);
    const told = model.get("told")[number];
    if (!button || !told) return;
    button.title = told.problem ? `${told.name}: ${told.problem}` : addresses.has(number) ? `${told.name}\nclick: the panel takes this state` : `${told.name}: not drawn yet`;
    button.disabled = !addresses.has(number);
    button.classList.toggle("failed", Boolean(told.problem));
    if (addresses.has(number)) button.replaceChildren(Object.assign(new Image(), { src: addresses.get(number), alt: told.name }));
    else button.textContent = told.problem ? "✖" : "";
  };
  const build = () => {
    addresses.forEach((address) => URL.revokeObjectURL(address));
    [addresses, buttons] = [new Map(), new Map()];
    title.textContent = model.get("title");
    grid.replaceChildren();
    tables(grid, model.get("facets"), model.get("axes"), (cell, number) => buttons.set(number, make("button", cell, { className: "cell", onclick: () => take(number) })));
    update();
  };
  const update = () => {
    buttons.forEach((_, number) => picture(number));
    const failed = model.get("told").filter((one) => one.problem);
    said.textContent = model.get("said") + (failed.length ? ` · ${failed.length} cannot be drawn: ${failed[0].name}: ${failed[0].problem}` : "");
    const names = Object.keys(model.get("scores"));
    menu.replaceChildren(new Option("none", ""), ...names.map((name) => new Option(name, name)));
    menu.value = names.includes(model.get("column")) ? model.get("column") : "";
    label.hidden = !names.length;
    heat(map, model, take);
  };
  const received = (content, buffers) => {
    content.cells.forEach((number, place) => {
      if (addresses.has(number)) URL.revokeObjectURL(addresses.get(number));
      addresses.set(number, URL.createObjectURL(new Blob([buffers[place]], { type: "image/webp" })));
      picture(number);
    });
  };
  model.on("change:shown", build);
  for (const name of ["told", "scores", "said", "column"]) model.on(`change:${name}`, update);
  model.on("msg:custom", received);
  build();
  model.send({ do: "all" });
  return () => {
    model.off("change:shown", build);
    for (const name of ["told", "scores", "said", "column"]) model.off(`change:${name}`, update);
    model.off("msg:custom", received);
    addresses.forEach((address) => URL.revokeObjectURL(address));
  };
}

export default { render };
