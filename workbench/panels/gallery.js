// The pictures that panels drew, page by page. All state is the model's (gallery_panel.py); here it is drawn, and asked for.

const PAGE = 60; // pictures of a page
const PAUSE = 250; // milliseconds after the last letter of a filter

// An element; what takes the focus keeps its keys from the notebook's shortcuts ("d d" deletes a cell).
function make(tag, parent, properties = {}, text = "") {
  const element = Object.assign(document.createElement(tag), properties);
  if (["BUTTON", "INPUT", "SELECT", "TEXTAREA", "DIALOG"].includes(element.tagName)) element.dataset.lmSuppressShortcuts = "true";
  element.append(text);
  parent.append(element);
  return element;
}

function filters(row, model, set) {
  const words = ["prompt", "model"].map((name) => {
    let timer;
    const look = () => (clearTimeout(timer), set({ [name]: input.value }));
    const wait = () => (clearTimeout(timer), (timer = setTimeout(look, PAUSE)));
    const input = make("input", row, { type: "search", placeholder: name, ariaLabel: `words of the ${name}`, oninput: wait });
    input.onchange = look; // who leaves the field before the pause is over has typed it all the same
    return () => document.activeElement === input || (input.value = model.get(name));
  });
  const method = make("select", row, { ariaLabel: "method", onchange: () => set({ method: method.value }) });
  const label = make("label", row);
  const starred = make("input", label, { type: "checkbox", onchange: () => set({ starred: starred.checked }) });
  label.append("only stars");
  return () => {
    words.forEach((update) => update());
    method.replaceChildren(new Option("any method", ""), ...model.get("methods").map((name) => new Option(name, name)));
    method.value = model.get("method");
    starred.checked = model.get("starred");
  };
}

function pages(row, model, set, ask) {
  const go = (by) => () => set({ start: Math.max(0, model.get("start") + by) });
  const leaf = make("span", row, { className: "pages" }); // in one line with its buttons
  const before = make("button", leaf, { onclick: go(-PAGE), title: "newer" }, "‹");
  const where = make("output", leaf);
  const after = make("button", leaf, { onclick: go(PAGE), title: "older" }, "›");
  make("button", row, { onclick: () => ask("undo"), title: "take back the last star, note or deletion" }, "Undo");
  make("button", row, { onclick: () => ask("refresh"), title: "show what was drawn meanwhile" }, "Refresh");
  return () => {
    const [start, count, total] = [model.get("start"), model.get("page").length, model.get("total")];
    where.textContent = count ? `${start + 1} to ${start + count} of ${total.toLocaleString("en")}` : "no pictures";
    before.disabled = start === 0;
    after.disabled = start + count >= total;
  };
}

const named = (one) => `${one.model}${one.method ? ` · ${one.method}` : ""} · seed ${one.seed}`;

function starButton(parent, one, ask) {
  const title = one.star ? "take the star away" : "give it a star";
  return make("button", parent, { className: "star", title, ariaPressed: String(one.star), onclick: () => ask("star", one.id, !one.star) }, one.star ? "★" : "☆");
}

function card(list, one, address, model, set, ask) {
  const figure = make("figure", list);
  const [take, look] = [() => ask("take", one.id), () => set({ looked_at: one.id })];
  const told = `${one.prompt}\n${named(one)}${one.models.length ? `\nof ${one.models.join(", ")}` : ""}${one.note ? `\n${one.note}` : ""}`;
  const title = `${told}\n${model.get("takes") ? "click: the panel takes this state" : "click: full size"}`;
  const open = make("button", figure, { className: "open", title, onclick: model.get("takes") ? take : look });
  if (address) make("img", open, { src: address, alt: one.prompt, loading: "lazy" });
  else make("span", open, {}, "its file is gone");
  const row = make("figcaption", figure);
  starButton(row, one, ask);
  make("button", row, { title: "full size", onclick: look }, "⤢");
  make("button", row, { title: "delete (Undo brings it back)", onclick: () => ask("delete", one.id) }, "✕");
  make("span", row, {}, `${one.note ? "✎ " : ""}${one.model}`);
}

// The picture that is looked at: its pixels, what is told of it, its note.
function dialog(root, model, set, ask) {
  const box = make("dialog", root, { onclose: () => set({ looked_at: 0 }) });
  const image = make("img", box, { title: "click: pixels 1:1, or fitted", onclick: () => image.classList.toggle("exact") });
  const told = make("p", box);
  const note = make("textarea", box, { placeholder: "notes", ariaLabel: "notes", rows: 2 });
  note.onchange = () => ask("note", model.get("looked_at"), note.value);
  const row = make("div", box, { className: "row" });
  const step = (by) => {
    const ids = model.get("page").map((one) => one.id);
    const next = ids[ids.indexOf(model.get("looked_at")) + by];
    if (next) set({ looked_at: next });
  };
  make("button", row, { onclick: () => step(-1) }, "‹ newer");
  make("button", row, { onclick: () => step(1) }, "older ›");
  const take = make("button", row, { onclick: () => (ask("take", model.get("looked_at")), box.close()) }, "Take into the panel");
  make("button", row, { onclick: () => box.close() }, "Close");
  box.onkeydown = (event) => {
    if (event.target === note) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(by);
    const one = model.get("page").find((one) => one.id === model.get("looked_at"));
    if (event.key === "s" && one) ask("star", one.id, !one.star);
  };
  let address = "";
  return () => {
    const one = model.get("page").find((one) => one.id === model.get("looked_at"));
    const full = model.get("full");
    if (!one || !full.byteLength) return;
    URL.revokeObjectURL(address);
    image.src = address = URL.createObjectURL(new Blob([full], { type: "image/png" }));
    image.alt = one.prompt;
    told.textContent = `${one.prompt} — ${named(one)}${one.star ? " ★" : ""}`;
    note.value = one.note;
    take.hidden = !model.get("takes");
    if (!box.open) box.showModal();
  };
}

function render({ model, el }) {
  el.classList.add("wb-pictures-kept");
  const set = (state) => (model.set(state), model.save_changes());
  const ask = (what, ...given) => model.send({ do: what, with: given });
  const row = make("div", el, { className: "row" });
  const updates = [filters(row, model, set), pages(row, model, set, ask)];
  const list = make("div", el, { className: "list" });
  const said = make("p", el, { className: "said", role: "status" });
  const look = dialog(el, model, set, ask);
  let addresses = [];
  const fill = () => {
    updates.forEach((update) => update());
    addresses.forEach((address) => URL.revokeObjectURL(address));
    addresses = model.get("thumbnails").map((bytes) => (bytes.byteLength ? URL.createObjectURL(new Blob([bytes], { type: "image/webp" })) : ""));
    list.replaceChildren();
    model.get("page").forEach((one, number) => card(list, one, addresses[number], model, set, ask));
  };
  const say = () => (said.textContent = model.get("said"));
  const filled = () => (fill(), look());
  model.on("change:page", filled);
  model.on("change:thumbnails", fill);
  model.on("change:total", fill);
  model.on("change:methods", fill);
  model.on("change:said", say);
  model.on("change:full", look);
  fill();
  say();
  return () => addresses.forEach((address) => URL.revokeObjectURL(address));
}

export default { render };
