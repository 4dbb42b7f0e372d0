"use strict";
// Everything a name of the user's reaches is set as text. The state that a test may ask for is in `document.body.dataset`.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const state = document.body.dataset;
  const $ = (id) => document.getElementById(id);
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const clear = (element) => { while (element.firstChild) element.removeChild(element.firstChild); };

  const blocks = data.blocks.map((row) => Object.fromEntries(data.columns.map((name, i) => [name, row[i]])));
  const { columns, rows } = data.device;
  const streamed = data.visits.length > 0;

  // ---- colours: Okabe and Ito's for kinds, cividis for amounts; both are made for colour-blind eyes.
  const OKABE = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#d55e00", "#9aa5b1",
    "#a6d8f2", "#f3cf80", "#7fcfb8", "#e5bcd3", "#7fb8d8", "#eaae80"];
  const KNOWN = { linear: 0, attend: 1, attend_with_bias: 1, layer_norm: 2, rms_norm: 2, activate: 3, silu: 3, gather: 4,
    dot: 5, rope: 6, elementwise: 7 };
  const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
  const DIRECTIONS = { forward: ["#0072b2", "forward"], again: ["#f0e442", "forward again"], backward: ["#d55e00", "backward"] };
  const kinds = new Map();
  let others = 8;
  for (const block of blocks) {
    if (kinds.has(block.kind)) continue;
    const known = Object.hasOwn(KNOWN, block.kind) ? KNOWN[block.kind] : others++ % OKABE.length;
    kinds.set(block.kind, OKABE[known]);
  }
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const amount = (value) => {
    const at = Math.max(0, Math.min(1, value)) * (CIVIDIS.length - 1);
    const low = rgb(CIVIDIS[Math.floor(at)]), high = rgb(CIVIDIS[Math.ceil(at)]), part = at - Math.floor(at);
    return "#" + low.map((v, i) => Math.round(v + (high[i] - v) * part).toString(16).padStart(2, "0")).join("");
  };
  const inkOn = (hex) => {
    const [r, g, b] = rgb(hex);
    return 0.299 * r + 0.587 * g + 0.114 * b > 135 ? "#14202b" : "#ffffff";
  };

  const LAYERS = [
    { id: "blocks", label: "Blocks", title: "Kinds of blocks, by share of " + (streamed ? "the time" : "the cores") },
    { id: "utilization", label: "Utilization", column: "compute",
      title: streamed ? "Lanes busy with multiply-adds while it runs" : "Lanes busy with multiply-adds, of the interval" },
    { id: "memory", label: "Memory", column: "memory", title: "SRAM filled" },
    { id: "links", label: "Link load", column: "fabric",
      title: streamed ? "Links busy while it runs" : "Links of its border busy, of the interval" },
  ];
  let layer = LAYERS[0];
  let selected = null, hovered = null, found = null, now = 0, current = null;

  const fill = (block) => (layer.column ? amount(block[layer.column]) : kinds.get(block.kind));
  const percent = (value) => (100 * value).toFixed(value < 0.1 ? 1 : 0) + "%";
  const seconds = (value) => {
    if (!value) return "0 s";
    for (const [unit, size] of [["s", 1], ["ms", 1e-3], ["us", 1e-6]]) {
      if (value >= size) return (value / size).toPrecision(3) + " " + unit;
    }
    return (value / 1e-9).toPrecision(3) + " ns";
  };
  const bytes = (value) => {
    for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["KB", 1e3]]) {
      if (value >= size) return (value / size).toPrecision(3) + " " + unit;
    }
    return value + " B";
  };

  // ---- the wafer
  const canvas = $("wafer"), pen = canvas.getContext("2d");
  const view = { scale: 1, x: 0, y: 0, width: 0, height: 0 };
  const fit = () => {
    const margin = 24;
    view.scale = Math.min((view.width - 2 * margin) / columns, (view.height - 2 * margin) / rows);
    view.x = (view.width - columns * view.scale) / 2;
    view.y = (view.height - rows * view.scale) / 2;
    draw();
  };
  const zoomAt = (factor, x, y) => {
    const least = 0.4 * Math.min(view.width / columns, view.height / rows);
    const scale = Math.max(least, Math.min(400, view.scale * factor));
    view.x = x - ((x - view.x) * scale) / view.scale;
    view.y = y - ((y - view.y) * scale) / view.scale;
    view.scale = scale;
    draw();
  };
  const zoomTo = (block) => {
    const wanted = Math.min((view.width * 0.5) / block.width, (view.height * 0.5) / block.height);
    view.scale = Math.max(Math.min(view.width / columns, view.height / rows) * 0.9, Math.min(wanted, 60));
    view.x = view.width / 2 - (block.x + block.width / 2) * view.scale;
    view.y = view.height / 2 - (block.y + block.height / 2) * view.scale;
    draw();
  };
  const shown = () => (streamed ? (current ? [blocks[current.block]] : []) : blocks);

  const label = (path, x, y, width, height, colour) => {
    if (Math.max(width, height) < 22) return;
    const words = path.split(".");
    for (let start = 0; start < words.length; start++) {
      const text = words.slice(start).join(".");
      for (const turned of [false, true]) {
        const across = turned ? height : width, along = turned ? width : height;
        const size = Math.min(streamed ? 26 : 15, (across - 6) / (0.56 * text.length), (along - 3) / 1.15);
        if (size < 7.5) continue;
        pen.save();
        pen.translate(x + width / 2, y + height / 2);
        if (turned) pen.rotate(-Math.PI / 2);
        pen.font = size + "px system-ui, Helvetica, Arial, sans-serif";
        pen.fillStyle = inkOn(colour);
        pen.textAlign = "center";
        pen.textBaseline = "middle";
        pen.fillText(text, 0, 0);
        pen.restore();
        return;
      }
    }
  };
  const paint = (block) => {
    const x = view.x + block.x * view.scale, y = view.y + block.y * view.scale;
    const width = block.width * view.scale, height = block.height * view.scale;
    if (x > view.width || y > view.height || x + width < 0 || y + height < 0) return;
    const colour = fill(block);
    pen.globalAlpha = found && !found.has(block) ? 0.18 : 1;
    pen.fillStyle = colour;
    pen.fillRect(x, y, width, height);
    if (Math.min(width, height) > 3) {
      pen.strokeStyle = "#ffffff";
      pen.lineWidth = 0.7;
      pen.strokeRect(x, y, width, height);
    }
    label(current ? current.name : block.path, x, y, width, height, colour);
    pen.globalAlpha = 1;
  };
  const outline = (block, colour, thick) => {
    pen.strokeStyle = colour;
    pen.lineWidth = thick;
    pen.strokeRect(view.x + block.x * view.scale, view.y + block.y * view.scale, block.width * view.scale,
      block.height * view.scale);
  };
  // Weight streaming: groups of tokens beside each other, and the cores that no group takes.
  const groups = () => {
    const cut = data.layout;
    if (!cut) return;
    const upright = cut.along === "columns";
    const count = Math.floor((upright ? columns : rows) / cut.features), used = count * cut.features;
    const box = (x, y, w, h) => [view.x + x * view.scale, view.y + y * view.scale, w * view.scale, h * view.scale];
    pen.fillStyle = "rgba(246, 248, 250, .86)";
    if (upright) pen.fillRect(...box(used, 0, columns - used, rows));
    else pen.fillRect(...box(0, used, columns, rows - used));
    pen.strokeStyle = "rgba(255, 255, 255, .9)";
    pen.lineWidth = 1.5;
    pen.beginPath();
    for (let i = 1; i <= count; i++) {
      const at = i * cut.features * view.scale;
      if (upright) { pen.moveTo(view.x + at, view.y); pen.lineTo(view.x + at, view.y + rows * view.scale); }
      else { pen.moveTo(view.x, view.y + at); pen.lineTo(view.x + columns * view.scale, view.y + at); }
    }
    pen.stroke();
  };
  // Weight streaming: all layers as a stack at the left, the one on the wafer in the colour of its direction.
  const stack = () => {
    if (view.x < 150 || !current) return;
    const names = layerNames, top = 14, height = Math.min(26, (view.height - 56) / names.length), x = 16, width = 78;
    names.forEach((name, i) => {
      const here = name === current.layer, y = top + i * height;
      pen.fillStyle = here ? DIRECTIONS[current.direction][0] : "#dfe5ea";
      pen.fillRect(x, y, width, Math.max(1, height - (height > 4 ? 1.5 : 0)));
      if (!here && height < 13) return;
      pen.font = (here ? "600 13px" : Math.min(12, height - 2) + "px") + " system-ui, sans-serif";
      pen.fillStyle = here ? "#14202b" : "#5c6b7a";
      pen.textAlign = "left";
      pen.textBaseline = "middle";
      pen.fillText(name, x + (here ? width + 7 : 6), y + height / 2, here ? view.x - width - 30 : width - 10);
    });
  };
  let waiting = false;
  const draw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const ratio = window.devicePixelRatio || 1;
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, view.width, view.height);
      pen.fillStyle = "#ffffff";
      pen.fillRect(view.x, view.y, columns * view.scale, rows * view.scale);
      shown().forEach(paint);
      if (streamed) { groups(); stack(); }
      if (hovered) outline(hovered, "#14202b", 1.5);
      if (selected && shown().includes(selected)) outline(selected, "#000000", 3);
      pen.strokeStyle = "#33414f";
      pen.lineWidth = 1.5;
      pen.strokeRect(view.x, view.y, columns * view.scale, rows * view.scale);
      ruler();
      state.scale = view.scale.toFixed(4);
      state.drawn = String(shown().length);
    });
  };
  const ruler = () => {
    const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500];
    const step = steps.find((n) => n * view.scale > 50) || 500;
    const x = 16, y = view.height - 14;
    pen.strokeStyle = pen.fillStyle = "#5c6b7a";
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.moveTo(x, y - 4); pen.lineTo(x, y); pen.lineTo(x + step * view.scale, y); pen.lineTo(x + step * view.scale, y - 4);
    pen.stroke();
    pen.font = "11.5px system-ui, sans-serif";
    pen.textAlign = "left";
    pen.textBaseline = "alphabetic";
    pen.fillText(step + (step > 1 ? " cores" : " core"), x + step * view.scale + 7, y + 1);
  };
  const blockAt = (x, y) => {
    const column = (x - view.x) / view.scale, row = (y - view.y) / view.scale;
    return shown().find((b) => column >= b.x && column < b.x + b.width && row >= b.y && row < b.y + b.height) || null;
  };

  // ---- what is said about a block
  const facts = (block) => {
    const list = [["kind", block.kind]];
    if (block.parameters) list.push(["parameters", block.parameters.toLocaleString("en")]);
    list.push(["cores", block.width + " x " + block.height + " at (" + block.x + ", " + block.y + ")"]);
    if (streamed) list.push(["of the step", percent(block.share)], ["runs", String(block.runs)]);
    else list.push(["busy, of the interval", percent(block.busy)]);
    list.push(["multiply-adds, of the lanes", percent(block.compute)], ["links", percent(block.fabric)],
      ["SRAM", bytes(block.bytes) + ", " + percent(block.memory)], ["bound by", block.bound]);
    return list;
  };
  const table = (pairs, name) => {
    const element = make("table");
    if (name !== undefined) {
      const row = element.insertRow();
      row.className = "name";
      const cell = row.insertCell();
      cell.colSpan = 2;
      cell.textContent = name;
    }
    for (const [key, value, tip] of pairs) {
      const row = element.insertRow();
      row.insertCell().textContent = key;
      row.insertCell().textContent = value;
      if (tip) row.title = tip;
    }
    return element;
  };
  const select = (block) => {
    selected = block;
    state.selected = block ? block.path : "";
    clear($("details"));
    $("details").append(block ? table(facts(block), block.path) : make("p", "Click a block. Drag to move, scroll to zoom.", "hint"));
    draw();
  };
  const partOf = (x, y) => {
    const cut = data.layout;
    const column = Math.floor((x - view.x) / view.scale), row = Math.floor((y - view.y) / view.scale);
    if (!cut) return [];
    const [along, across, other] = cut.along === "columns" ? [column, row, rows] : [row, column, columns];
    const group = Math.floor(along / cut.features);
    if (group >= Math.floor((cut.along === "columns" ? columns : rows) / cut.features)) return [["core", "has no part"]];
    return [["features, part", (along % cut.features) + 1 + " of " + cut.features],
      ["tokens, part", group * other + across + 1 + " of " + cut.tokens]];
  };
  const hover = (event) => {
    const x = event.offsetX, y = event.offsetY, block = blockAt(x, y), tip = $("tooltip");
    if (block !== hovered) { hovered = block; draw(); }
    state.hover = block ? block.path : "";
    tip.hidden = !block;
    if (!block) return;
    clear(tip);
    tip.append(make("b", current ? current.name : block.path));
    tip.append(table([...(streamed ? partOf(x, y) : []), ...facts(block).slice(0, 7)]));
    const left = Math.min(x + 16, view.width - tip.offsetWidth - 8);
    const top = canvas.offsetTop + Math.min(y + 16, view.height - tip.offsetHeight - 8);
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = Math.max(4, top) + "px";
  };

  // ---- pointer and keys
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.offsetX, y: event.offsetY, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) { hover(event); return; }
    const dx = event.offsetX - drag.x, dy = event.offsetY - drag.y;
    if (!drag.moved && Math.hypot(dx, dy) < 4) return;
    drag = { x: event.offsetX, y: event.offsetY, moved: true };
    canvas.classList.add("dragging");
    $("tooltip").hidden = true;
    view.x += dx;
    view.y += dy;
    state.panned = "1";
    draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) select(blockAt(event.offsetX, event.offsetY));
    drag = null;
    canvas.classList.remove("dragging");
  });
  canvas.addEventListener("pointerleave", () => { hovered = null; state.hover = ""; $("tooltip").hidden = true; draw(); });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomAt(Math.exp(-event.deltaY * 0.0015), event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("dblclick", fit);
  $("zoom-in").addEventListener("click", () => zoomAt(1.5, view.width / 2, view.height / 2));
  $("zoom-out").addEventListener("click", () => zoomAt(1 / 1.5, view.width / 2, view.height / 2));
  $("fit").addEventListener("click", fit);
  document.addEventListener("keydown", (event) => {
    if (event.target === $("search")) { if (event.key === "Escape") { $("search").value = ""; search(); canvas.focus(); } return; }
    const pan = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[event.key];
    if (pan && event.target !== $("time")) { view.x += pan[0]; view.y += pan[1]; draw(); event.preventDefault(); }
    else if (event.key === "+" || event.key === "=") zoomAt(1.5, view.width / 2, view.height / 2);
    else if (event.key === "-") zoomAt(1 / 1.5, view.width / 2, view.height / 2);
    else if (event.key === "0") fit();
    else if (event.key === "/") { $("search").focus(); event.preventDefault(); }
    else if (event.key === " " && streamed && event.target.tagName !== "BUTTON") { play(); event.preventDefault(); }
    else if (LAYERS[Number(event.key) - 1]) choose(LAYERS[Number(event.key) - 1]);
  });

  // ---- layers and legend
  const choose = (one) => {
    layer = one;
    state.layer = one.id;
    for (const button of $("layers").children) button.setAttribute("aria-pressed", String(button.id === "layer-" + one.id));
    legend();
    draw();
  };
  const legend = () => {
    const box = $("legend");
    clear(box);
    $("legend-title").textContent = layer.title;
    if (layer.column) {
      const bar = make("div", undefined, "scale");
      bar.style.background = "linear-gradient(to right, " + CIVIDIS.join(", ") + ")";
      const ends = make("div", undefined, "ends");
      ends.append(make("span", "0%"), make("span", "50%"), make("span", "100%"));
      const values = blocks.map((block) => block[layer.column]);
      box.append(bar, ends, make("p", "Blocks have " + percent(Math.min(...values)) + " to " + percent(Math.max(...values)) + ".", "hint"));
      return;
    }
    const shares = new Map();
    for (const b of blocks) shares.set(b.kind, (shares.get(b.kind) || 0) + (streamed ? b.share : (b.width * b.height) / (columns * rows)));
    for (const [kind, share] of [...shares].sort((a, b) => b[1] - a[1])) {
      const row = make("div", undefined, "row"), swatch = make("i");
      swatch.style.background = kinds.get(kind);
      row.append(swatch, make("span", kind), make("span", percent(share)));
      box.append(row);
    }
  };

  // ---- search
  const search = () => {
    const text = $("search").value.trim().toLowerCase(), list = $("matches");
    const all = text ? (streamed ? moments.filter((m) => m.name.toLowerCase().includes(text))
      : blocks.filter((b) => b.path.toLowerCase().includes(text) || b.kind.toLowerCase() === text)) : [];
    found = text && !streamed ? new Set(all) : null;
    state.matches = text ? String(all.length) : "";
    clear(list);
    for (const one of all.slice(0, 40)) {
      const item = make("li"), button = make("button", streamed ? one.name + " (" + DIRECTIONS[one.direction][1] + ")" : one.path);
      button.addEventListener("click", () => {
        if (streamed) { at(one.start); select(blocks[one.block]); }
        else { select(one); zoomTo(one); }
      });
      item.append(button);
      list.append(item);
    }
    if (all.length > 40) list.append(make("li", all.length - 40 + " more", "hint"));
    if (text && !all.length) list.append(make("li", "No block has this in its name.", "hint"));
    draw();
  };
  $("search").addEventListener("input", search);
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && $("matches").querySelector("button")) $("matches").querySelector("button").click();
  });

  // ---- time: what is on the wafer when, in one pass
  const moments = [];
  let length = 0;
  for (const [visit, [name, direction, start, sweep]] of data.visits.entries()) {
    let clock = start;
    for (const [block, duration, weights] of data.sweeps[sweep]) {
      const path = blocks[block].path, stage = blocks[block].layer;
      const own = path.startsWith(stage + ".") ? name + path.slice(stage.length) : path;
      moments.push({ name: own, layer: name, visit, direction, start: clock, duration, weights, block });
      clock += duration;
    }
    length = Math.max(length, clock);
  }
  const layerNames = [...new Set(data.visits.filter((visit) => visit[1] === "forward").map((visit) => visit[0]))];
  const at = (time) => {
    now = Math.max(0, Math.min(time, length));
    let low = 0, high = moments.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (moments[middle].start <= now) low = middle; else high = middle - 1;
    }
    current = moments[low];
    $("time").value = String(Math.round((now / length) * 10000));
    state.time = now.toPrecision(6);
    state.current = current.name;
    state.onWafer = current.layer;
    state.direction = current.direction;
    clear($("now"));
    $("now").append(make("b", current.name),
      make("span", DIRECTIONS[current.direction][1] + ", " + seconds(now) + " of " + seconds(length)
        + (data.passes > 1 ? ", each of " + data.passes + " passes" : "")));
    strip();
    draw();
  };
  const track = $("track"), brush = track.getContext("2d");
  const strip = () => {
    const ratio = window.devicePixelRatio || 1, width = track.clientWidth, height = track.clientHeight;
    if (!width) return;
    track.width = width * ratio;
    track.height = height * ratio;
    brush.setTransform(ratio, 0, 0, ratio, 0, 0);
    data.visits.forEach(([name, direction, start], i) => {
      const end = i + 1 < data.visits.length ? data.visits[i + 1][2] : length;
      brush.fillStyle = DIRECTIONS[direction][0];
      brush.globalAlpha = i % 2 ? 0.62 : 0.85;
      brush.fillRect((start / length) * width, 0, Math.max(0.6, ((end - start) / length) * width), height);
    });
    brush.globalAlpha = 1;
    brush.fillStyle = "#14202b";
    brush.fillRect((now / length) * width - 1.5, 0, 3, height);
    inside(ratio);
  };
  // The blocks of the layer that is on the wafer, each as wide as it takes long.
  const inner = $("inner"), fine = inner.getContext("2d");
  const inside = (ratio) => {
    if (!current) return;
    const width = inner.clientWidth, height = inner.clientHeight;
    inner.width = width * ratio;
    inner.height = height * ratio;
    fine.setTransform(ratio, 0, 0, ratio, 0, 0);
    fine.font = "11px system-ui, sans-serif";
    fine.textAlign = "center";
    fine.textBaseline = "middle";
    const here = moments.filter((m) => m.visit === current.visit), begin = here[0].start;
    const whole = here.reduce((sum, m) => sum + m.duration, 0);
    for (const m of here) {
      const x = ((m.start - begin) / whole) * width, w = (m.duration / whole) * width, colour = kinds.get(blocks[m.block].kind);
      fine.fillStyle = colour;
      fine.fillRect(x, 0, Math.max(0.5, w - 1), height);
      const own = m.name.startsWith(m.layer + ".") ? m.name.slice(m.layer.length + 1) : m.name;
      const text = [own, own.split(".").pop()].find((one) => fine.measureText(one).width < w - 6);
      fine.fillStyle = inkOn(colour);
      if (text) fine.fillText(text, x + w / 2, height / 2);
    }
    fine.fillStyle = "#14202b";
    fine.fillRect(((now - begin) / whole) * width - 1, 0, 2, height);
  };
  let playing = null;
  const play = () => {
    $("play").textContent = playing ? "\u25b6" : "\u2016";
    if (playing) { cancelAnimationFrame(playing); playing = null; return; }
    if (now >= length) at(0);
    let before = performance.now();
    const frame = (time) => {
      at(now + ((time - before) / 20000) * length);
      before = time;
      if (now >= length) { playing = null; $("play").textContent = "\u25b6"; return; }
      playing = requestAnimationFrame(frame);
    };
    playing = requestAnimationFrame(frame);
  };
  $("play").addEventListener("click", play);
  $("time").addEventListener("input", () => at((Number($("time").value) / 10000) * length));

  // ---- the page around it
  $("title").textContent = data.title;
  $("subtitle").textContent = data.subtitle;
  for (const [name, value] of data.facts) {
    const fact = make("div");
    fact.append(make("b", value), make("span", name));
    $("facts").append(fact);
  }
  for (const one of LAYERS) {
    const button = make("button", one.label);
    button.id = "layer-" + one.id;
    button.addEventListener("click", () => choose(one));
    $("layers").append(button);
  }
  const memory = $("memory"), bar = make("div", undefined, "bar"), listed = make("table");
  data.memory.forEach(([name, text, formula, value], i) => {
    const part = make("div");
    part.style.cssText = "width:" + (100 * value) / data.capacity + "%;background:" + OKABE[(i + 5) % 7];
    bar.append(part);
    const row = listed.insertRow(), cell = row.insertCell(), swatch = make("i");
    swatch.style.background = OKABE[(i + 5) % 7];
    cell.append(swatch, name);
    row.insertCell().textContent = text;
    row.title = formula;
  });
  memory.append(bar, listed);
  $("times").append(table(data.times));
  $("notes").textContent = data.notes.join("\n");
  if (streamed) {
    $("timeline").hidden = false;
    const keys = make("div", undefined, "row hint");
    keys.textContent = "Time runs along the strip: ";
    for (const key of new Set(data.visits.map((visit) => visit[1]))) {
      const swatch = make("i");
      swatch.style.cssText = "display:inline-block;width:11px;height:11px;border-radius:2px;margin:0 4px 0 8px;background:" + DIRECTIONS[key][0];
      keys.append(swatch, DIRECTIONS[key][1]);
    }
    $("notes").before(keys);
  }
  const resize = () => {
    const ratio = window.devicePixelRatio || 1, first = !view.width;
    const box = canvas.getBoundingClientRect();
    const old = { width: view.width, height: view.height };
    view.width = box.width;
    view.height = box.height;
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    if (first) fit();
    else { view.x += (view.width - old.width) / 2; view.y += (view.height - old.height) / 2; draw(); }
    if (streamed) strip();
  };
  new ResizeObserver(resize).observe(canvas);
  resize();
  state.mode = data.mode;
  state.blocks = String(blocks.length);
  state.moments = String(moments.length);
  choose(LAYERS[0]);
  select(null);
  if (streamed) at(moments[0].start);
  state.ready = "1";
})();
