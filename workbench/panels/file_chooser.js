// The models in a folder: filtered, sorted and chosen. What lies there, and what becomes of it, is Python's (file_chooser.py).

const PAGE = 100; // rows of a page
const PAUSE = 200; // milliseconds after the last letter of a filter
const KEPT = 12; // letters at the end of a name that are always seen
const HINT = "Double click, Enter or + puts a model into the merge. Ctrl and Shift choose several.";

// An element; what takes the focus keeps its keys from the notebook's shortcuts ("d d" deletes a cell).
function make(tag, parent, properties = {}, text = "") {
  const element = Object.assign(document.createElement(tag), properties);
  element.dataset.lmSuppressShortcuts = "true";
  element.append(text);
  parent.append(element);
  return element;
}

// A name whose end is always seen: versions differ there.
function cut(parent, icon, name) {
  const whole = make("span", parent, { className: "wb-cut" });
  const at = name.length > 2 * KEPT ? name.length - KEPT : name.length;
  make("span", whole, {}, icon + name.slice(0, at));
  make("span", whole, {}, name.slice(at));
}

function head(el, model, set, ask) {
  const place = make("div", el);
  make("button", place, { title: "the folder above", ariaLabel: "the folder above", onclick: () => ask("up") }, "↑");
  const folder = make("input", place, { type: "text", ariaLabel: "folder", title: "A folder on the machine that runs this" });
  folder.onchange = () => set({ folder: folder.value });
  folder.onkeydown = (event) => event.key === "Enter" && folder.blur(); // tells of the change
  const recent = make("select", place, { ariaLabel: "recent folders", title: "Folders that models were lately taken from" });
  recent.onchange = () => recent.value && set({ folder: recent.value });
  const looking = make("div", el);
  let timer;
  const words = make("input", looking, { type: "search", placeholder: "words of the name", ariaLabel: "words of the name" });
  const look = () => (clearTimeout(timer), set({ words: words.value }));
  words.oninput = () => (clearTimeout(timer), (timer = setTimeout(look, PAUSE)));
  words.onchange = look; // who leaves the field before the pause is over has typed it all the same
  const label = make("label", looking, { title: "Models in all folders below this one" });
  const below = make("input", label, { type: "checkbox", onchange: () => set({ below: below.checked }) });
  label.append("subfolders");
  return () => {
    if (document.activeElement !== folder) folder.value = model.get("folder");
    folder.title = model.get("folder");
    if (document.activeElement !== words) words.value = model.get("words");
    below.checked = model.get("below");
    recent.replaceChildren(new Option("recent", ""), ...model.get("recent").map((one) => new Option(one, one)));
    recent.disabled = !model.get("recent").length;
  };
}

function columns(table, model, set) {
  const widths = make("colgroup", table);
  ["wb-filename", "wb-size", "wb-date", "wb-family", "wb-plus"].forEach((className) => make("col", widths, { className }));
  const line = make("tr", make("thead", table));
  const heads = ["name", "size", "date", "family"].map((name) => {
    const cell = make("th", line, { className: `wb-${name}`, scope: "col" });
    const sort = () => set(model.get("by") === name ? { descending: !model.get("descending") } : { by: name, descending: name === "size" || name === "date" });
    return { name, cell, button: make("button", cell, { onclick: sort, title: `sort by ${name}` }) };
  });
  make("th", line);
  return () => heads.forEach(({ name, cell, button }) => {
    const chosen = model.get("by") === name;
    button.textContent = chosen ? `${name} ${model.get("descending") ? "▾" : "▴"}` : name;
    cell.ariaSort = chosen ? (model.get("descending") ? "descending" : "ascending") : "none";
  });
}

function pages(el, model, set) {
  const line = make("div", el, { className: "wb-files-pages" });
  const told = make("output", line);
  const leaf = make("span", line);
  const before = make("button", leaf, { title: "rows before", ariaLabel: "rows before" }, "‹");
  const after = make("button", leaf, { title: "rows after", ariaLabel: "rows after" }, "›");
  before.onclick = () => set({ start: Math.max(0, model.get("start") - PAGE) });
  after.onclick = () => set({ start: model.get("start") + PAGE });
  return () => {
    const [start, count, total] = [model.get("start"), model.get("page").length, model.get("total")];
    told.textContent = !total ? "nothing found" : total <= count ? `${total} found` : `${start + 1} to ${start + count} of ${total.toLocaleString("en")}`;
    leaf.style.visibility = total > count ? "visible" : "hidden";
    before.disabled = start === 0;
    after.disabled = start + count >= total;
  };
}

// A row, and what is told of the file later.
function row(body, one, act) {
  const line = make("tr", body, { tabIndex: -1 });
  const icon = { folder: "▸ ", model: "▪ ", file: "" }[one.kind];
  cut(make("td", line, { className: "wb-filename" }), icon, one.kind === "folder" ? `${one.name}/` : one.name.replace(/\.safetensors$/i, ""));
  make("td", line, { className: "wb-size" }, one.size);
  make("td", line, { className: "wb-date" }, one.date);
  const family = make("td", line, { className: "wb-family" });
  const last = make("td", line);
  if (one.kind !== "folder") {
    const told = `put ${one.name} into the merge`;
    make("button", last, { title: told, ariaLabel: told, tabIndex: -1, onclick: (event) => (event.stopPropagation(), act([one.name])) }, "+");
  }
  const tell = (now) => {
    family.textContent = now.family;
    line.title = `${now.name}${now.told ? `\n${now.told}` : ""}`;
    line.classList.toggle("wb-broken", now.broken);
  };
  return { line, tell };
}

function render({ model, el }) {
  el.classList.add("wb-files");
  const set = (changes) => (Object.entries(changes).forEach(([name, value]) => model.set(name, value)), model.save_changes());
  const ask = (what, ...given) => model.send({ do: what, with: given });
  const chosen = new Set(); // names; they stay chosen on other pages
  let [anchor, current] = [0, 0]; // rows of the page: where a range began, and which one has the keys
  let [lines, tells, names] = [[], [], null];

  const updates = [head(el, model, set, ask)];
  const list = make("div", el, { className: "wb-files-list" });
  const table = make("table", list, { ariaLabel: "models in the folder" });
  table.setAttribute("role", "grid");
  table.setAttribute("aria-multiselectable", "true");
  updates.push(columns(table, model, set));
  const body = make("tbody", table);
  updates.push(pages(el, model, set));
  const buttons = make("div", el);
  const merge = make("button", buttons, { className: "wb-first", title: `Open, and put into the merge. ${HINT}` });
  const shelve = make("button", buttons, { title: "Open, to be chosen in an input later" }, "Only onto the shelf");
  make("button", buttons, { title: "List the folder anew, and open files anew that have changed", onclick: () => ask("again") }, "Read again");

  const rows = () => model.get("page");
  const add = (names, merged) => (ask("add", names, merged), chosen.clear(), mark());
  merge.onclick = () => add([...chosen], true);
  shelve.onclick = () => add([...chosen], false);

  function mark() {
    lines.forEach((line, i) => {
      line.ariaSelected = String(chosen.has(rows()[i].name));
      line.tabIndex = i === current ? 0 : -1;
    });
    merge.textContent = chosen.size > 1 ? `Into the merge (${chosen.size})` : "Into the merge";
    merge.disabled = shelve.disabled = !chosen.size;
  }

  function choose(i, event) {
    const one = rows()[i];
    const ranged = event.shiftKey ? rows().slice(Math.min(anchor, i), Math.max(anchor, i) + 1) : [one];
    const names = ranged.filter(({ kind }) => kind !== "folder").map(({ name }) => name);
    const taken = (event.ctrlKey || event.metaKey) && !event.shiftKey && names.every((name) => chosen.has(name));
    if (!event.ctrlKey && !event.metaKey) chosen.clear();
    names.forEach((name) => (taken ? chosen.delete(name) : chosen.add(name)));
    if (!event.shiftKey) anchor = i;
    current = i;
    mark();
  }

  function act(i) {
    const one = rows()[i];
    if (one.kind === "folder") ask("go", one.name);
    else add(chosen.has(one.name) ? [...chosen] : [one.name], true);
  }

  function turn(start, at) {
    current = at;
    set({ start });
  }

  function typed(event) {
    const last = lines.length - 1;
    const [start, total] = [model.get("start"), model.get("total")];
    const to = { ArrowUp: current - 1, ArrowDown: current + 1, Home: 0, End: last, PageUp: current - 8, PageDown: current + 8 }[event.key];
    if (event.key === "ArrowDown" && current === last && start + lines.length < total) turn(start + PAGE, 0);
    else if (event.key === "ArrowUp" && current === 0 && start > 0) turn(start - PAGE, PAGE - 1);
    else if (to !== undefined) {
      const at = Math.min(Math.max(to, 0), last);
      if (event.ctrlKey || event.metaKey) (current = at), mark();
      else choose(at, event);
      lines[at].focus();
    } else if (event.key === " ") choose(current, { ctrlKey: true });
    else if (event.key === "Enter") act(current);
    else if (event.key === "Backspace") ask("up");
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) rows().forEach(({ name, kind }) => kind !== "folder" && chosen.add(name)), mark();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
  body.addEventListener("keydown", typed);

  function fill() {
    const held = body.contains(document.activeElement);
    body.replaceChildren();
    const made = rows().map((one) => row(body, one, (names) => add(names, true)));
    [lines, tells] = [made.map(({ line }) => line), made.map(({ tell }) => tell)];
    lines.forEach((line, i) => {
      line.onclick = (event) => choose(i, event);
      line.ondblclick = () => act(i);
    });
    const none = model.get("words") ? "No name has these words." : model.get("said") ? "" : "No models here.";
    if (!lines.length) make("td", make("tr", body), { colSpan: 5, className: "wb-files-none" }, none);
    current = Math.min(current, Math.max(lines.length - 1, 0));
    mark();
    if (held) lines[current]?.focus();
  }

  function show() {
    const now = JSON.stringify([rows().map(({ name }) => name), model.get("folder"), model.get("words")]);
    if (now !== names) fill(); // else only more is known of the same rows, which stay under the mouse
    names = now;
    rows().forEach((one, i) => tells[i](one));
    updates.forEach((update) => update());
  }

  const left = () => (chosen.clear(), ([anchor, current] = [0, 0]), (list.scrollTop = 0));
  const shown = ["page", "total", "recent", "said", "by", "descending"].map((name) => `change:${name}`);
  shown.forEach((name) => model.on(name, show));
  model.on("change:folder", left);
  show();
  return () => {
    shown.forEach((name) => model.off(name, show));
    model.off("change:folder", left);
  };
}

export default { render };
