// A line that takes files: chosen, or dropped anywhere on the panel around it. Of a safetensors file only the header travels.
// What is dropped where models are chosen is meant as a model.

const [SAMPLES, SAMPLE] = [16, 4096]; // of a model's file, which tell it from others of its family: see dropped_model.py
const MOST = 2 ** 26; // bytes of any other file

async function content(file) {
  if (!/\.(safetensors|sft)$/i.test(file.name)) return file.size <= MOST ? await file.arrayBuffer() : null;
  const length = new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true);
  return length <= MOST ? await file.slice(0, 8 + Number(length)).arrayBuffer() : null;
}

async function samples(file) {
  if (!/\.(safetensors|sft|ckpt|pt|pth|bin)$/i.test(file.name)) return new ArrayBuffer(0);
  const starts = [...Array(SAMPLES).keys()].map((i) => Number((BigInt(file.size) * BigInt(2 * i + 1)) / BigInt(2 * SAMPLES)));
  return new Blob(starts.map((start) => file.slice(start, start + SAMPLE))).arrayBuffer();
}

function render({ model, el }) {
  el.classList.add("wb-drop");
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "file", ariaLabel: "reopen a file" });
  const told = document.createElement("span");
  told.textContent = "Reopen a grid, picture, recipe or merged file, or add a model: drop it here, or ";
  label.append(told, input);
  el.append(label);
  const send = async (file, onto = "panel") => {
    const bytes = await content(file).catch(() => null);
    const some = await samples(file).catch(() => new ArrayBuffer(0));
    model.send({ name: file.name, size: file.size, onto }, undefined, [bytes ?? new ArrayBuffer(0), some]);
  };
  input.onchange = async () => {
    for (const file of input.files) await send(file);
    input.value = "";
  };
  const over = (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
    const shelf = event.target.closest(".wb-shelf");
    [el, panel.querySelector(".wb-shelf")].forEach((one) => one?.classList.toggle("wb-over", event.type === "dragover" && one === (shelf ?? el)));
    if (event.type === "drop") [...event.dataTransfer.files].forEach((file) => send(file, shelf ? "models" : "panel"));
  };
  let panel = null;
  const kinds = ["dragover", "dragleave", "drop"];
  const listen = requestAnimationFrame(() => {
    panel = el.closest(".wb-panel") ?? el;
    kinds.forEach((kind) => panel.addEventListener(kind, over));
  });
  return () => {
    cancelAnimationFrame(listen);
    kinds.forEach((kind) => panel?.removeEventListener(kind, over));
  };
}

export default { render };
