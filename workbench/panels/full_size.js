// A picture of the panel that is clicked, in full size; the arrows go to the pictures beside it. Its pixels come when it is looked at.

function render({ model, el }) {
  el.classList.add("wb-full-size");
  const look = (place) => (model.set("looked_at", place), model.save_changes());
  const box = document.createElement("dialog");
  box.dataset.lmSuppressShortcuts = "true";
  const image = Object.assign(document.createElement("img"), { title: "click: one pixel is one pixel, or all of it" });
  const told = document.createElement("p");
  const close = Object.assign(document.createElement("button"), { textContent: "Close", onclick: () => box.close() });
  box.append(image, told, close);
  el.append(box);
  let panel = null;
  let address = "";
  const columns = () => [...panel.querySelectorAll(".wb-pictures")].map((column) => [...column.querySelectorAll("img")]);
  const clicked = (event) => {
    const column = columns().find((pictures) => pictures.includes(event.target));
    if (column) look([event.target.alt, column.indexOf(event.target)]);
  };
  const go = (across, down) => {
    const all = columns();
    const [name, number] = model.get("looked_at");
    const at = all.findIndex((pictures) => pictures[0]?.alt === name);
    const next = all[at + across]?.[number + down];
    if (next) look([next.alt, number + down]);
  };
  box.onkeydown = (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    go(...way);
  };
  box.onclose = () => look([]);
  image.onclick = () => {
    box.classList.toggle("wb-exact");
    size();
  };
  // pixels of the screen, not of CSS, where one is to be one
  const size = () => (image.style.width = box.classList.contains("wb-exact") ? `${image.naturalWidth / window.devicePixelRatio}px` : "");
  image.onload = size;
  model.on("change:full", () => {
    const full = model.get("full");
    if (!full.byteLength) return;
    URL.revokeObjectURL(address);
    image.src = address = URL.createObjectURL(new Blob([full], { type: "image/png" }));
    image.alt = told.textContent = model.get("said");
    if (!box.open) box.showModal();
  });
  const listen = requestAnimationFrame(() => {
    panel = el.closest(".wb-panel") ?? el;
    panel.addEventListener("click", clicked);
  });
  return () => {
    cancelAnimationFrame(listen);
    panel?.removeEventListener("click", clicked);
    URL.revokeObjectURL(address);
  };
}

export default { render };
