"""The browser's half of `charts.live_chart`: one element a chart, marked and listened to.

Charts and selections are kept by name in `window.ffnNas`, because the two are sent apart: a click
must not send the figure again.
"""

CHART_JS = r"""
const shared = window.ffnNas = window.ffnNas || {charts: {}, marks: {}};
shared.waiting = shared.waiting || new Set();  // elements to be drawn

const number = (row) => Array.isArray(row) ? row[0] : row;

// The palette's darkest grey is not seen on a dark page.
function legible(figure, element) {
  const ink = getComputedStyle(element).color.match(/\d+/g) || [0, 0, 0];
  const dark = Number(ink[0]) + Number(ink[1]) + Number(ink[2]) > 384;
  return dark ? figure.replaceAll("#555555", "#A6A6A6") : figure;
}

function themed(figure, element) {
  const style = getComputedStyle(element);
  const ink = style.getPropertyValue("--st-text-color").trim() || "#31333f";
  const ground = style.getPropertyValue("--st-background-color").trim() || "#ffffff";
  figure.layout.paper_bgcolor = figure.layout.plot_bgcolor = "rgba(0,0,0,0)";
  figure.layout.modebar = {bgcolor: "rgba(0,0,0,0)", color: "#888888", activecolor: ink,
                           orientation: "v"};
  figure.layout.font = {family: style.getPropertyValue("--st-font") || "sans-serif",
                        color: ink, size: 13};
  figure.layout.hoverlabel = {...figure.layout.hoverlabel, bgcolor: ground, bordercolor: ink,
                              font: {color: ink}};
  return ink;
}

// Rings around the selected trials; in traces of points alone the others are dimmed.
function marked(figure, chosen, ink) {
  const wanted = new Set(chosen), x = [], y = [];
  const drawn = figure.data.filter((trace) => trace.customdata);
  const any = drawn.some((trace) => trace.customdata.some((row) => row && wanted.has(number(row))));
  for (const trace of drawn) {
    const own = [];
    trace.customdata.forEach((row, i) => {
      if (row !== null && wanted.has(number(row))) own.push(i);
    });
    if (trace.visible !== "legendonly" && !trace.xaxis) {
      own.forEach((i) => { x.push(trace.x[i]); y.push(trace.y[i]); });
    }
    if (any && trace.mode && !trace.mode.includes("lines")) {
      trace.selectedpoints = own;
      trace.unselected = {marker: {opacity: trace.opacity < 1 ? 0.75 : 0.4}};
    }
  }
  if (x.length) {
    figure.data.push({type: "scatter", x, y, mode: "markers", hoverinfo: "skip", name: "selected",
      showlegend: false, marker: {symbol: "circle-open", size: 19, color: ink,
                                  line: {width: 2, color: ink}}});
  }
  figure.layout.selections = [];
  figure.layout.selectionrevision = chosen.join(",");
}

function listen(element) {
  const area = (event) => {
    if (!event || !event.points || !element.selects || element.drawing) return;
    const found = event.points.map((point) => point.customdata)
      .filter((row) => row !== undefined && row !== null).map(number);
    element.tell({how: "area", numbers: [...new Set(found)]});
  };
  element.on("plotly_selected", area);
  element.on("plotly_deselect", () => {
    if (element.drawing || !element.selects || !element.chosen().length) return;
    element.tell({how: "area", numbers: []});
  });
  element.on("plotly_click", (event) => {
    const point = event.points.find((each) => each.customdata);
    if (!point) return;
    const one = number(point.customdata), keys = event.event || {};
    const more = keys.shiftKey || keys.ctrlKey || keys.metaKey;
    const before = more ? element.chosen() : [];
    const numbers = before.includes(one) ? before.filter((n) => n !== one) : [...before, one];
    element.tell({how: "click", clicked: one, numbers});
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest && event.target.closest(
      "input, textarea, select, [role=combobox], [role=dialog], [role=listbox], [role=grid]");
    if (event.key !== "Escape" || typing || event.defaultPrevented) return;
    if (element.isConnected && element.selects && element.chosen().length) {
      element.tell({how: "area", numbers: []});
    }
  });
}

// A kind of trace that few charts have lies ready in Plotly's script until one comes.
function learnt(figure) {
  const known = window.ffnNasTraces || {};
  for (const {type} of figure.data) {
    if (!known[type]) continue;
    window.Plotly.register(known[type]());
    delete known[type];
  }
}

// Plotly draws a chart a second time where legend and labels need more room than its margins give.
// How much that was is kept in the browser, by what the room depends on: later visits draw once.
const ROOMS = "ffn-nas.rooms", MOST_ROOMS = 60;

function rooms() {
  try { return JSON.parse(localStorage.getItem(ROOMS)) || {}; } catch { return {}; }
}

function roomName(figure, element) {
  const titles = Object.entries(figure.layout).filter(([name]) => /^[xy]axis/.test(name))
    .map(([, axis]) => axis.title && axis.title.text);
  const entries = figure.data.filter((trace) => trace.showlegend !== false)
    .map((trace) => trace.name);
  return JSON.stringify([element.clientWidth, element.clientHeight, titles, entries]);
}

function withRoom(figure, element) {
  const name = roomName(figure, element), known = rooms()[name] || {}, sides = ["l", "r", "t", "b"];
  const margin = figure.layout.margin = {...figure.layout.margin};
  for (const side of sides) margin[side] = Math.max(margin[side] || 0, known[side] || 0);
  return () => {
    const size = element._fullLayout && element._fullLayout._size;
    if (!size || sides.every((side) => size[side] <= margin[side])) return;
    const kept = Object.entries(rooms()).filter(([other]) => other !== name).slice(1 - MOST_ROOMS);
    const room = Object.fromEntries(sides.map((side) => [side, Math.ceil(size[side])]));
    try {
      localStorage.setItem(ROOMS, JSON.stringify(Object.fromEntries([...kept, [name, room]])));
    } catch { /* a browser that keeps nothing draws twice */ }
  };
}

const inSight = (element) => {
  const box = element.getBoundingClientRect();
  return box.bottom > 0 && box.top < window.innerHeight;
};

// One at a time, those in sight first; between two the page shows what is there.
async function next() {
  const all = [...shared.waiting];
  const element = all.find(inSight) || all[0];
  if (!element) { shared.busy = false; return; }
  if (!window.Plotly && element.isConnected) {
    if (window.ffnNasPlotly) window.ffnNasPlotly();
    setTimeout(next, 10);
    return;
  }
  shared.waiting.delete(element);
  try {
    await element.paint();
  } finally {
    requestAnimationFrame(() => setTimeout(next, 0));
  }
}

function soon(element) {
  shared.waiting.add(element);
  if (shared.busy) return;
  shared.busy = true;
  setTimeout(next, 0);  // all that come with it are in the queue by then
}

export default function ({data, parentElement, setStateValue, setTriggerValue}) {
  let element = parentElement.querySelector(".ffn-nas-chart");
  if (!element) {
    element = document.createElement("div");
    element.className = "ffn-nas-chart";
    element.setAttribute("role", "figure");
    // The colour follows the page's theme; its change is the only sign of another theme.
    element.style.color = "var(--st-text-color)";
    element.style.transition = "color 20ms";
    element.addEventListener("transitionend", (event) => {
      if (event.target === element && event.propertyName === "color") element.draw();
    });
    parentElement.appendChild(element);
  }
  element.setAttribute("aria-label", data.label);
  element.style.height = data.height + "px";
  element.selects = data.selects;
  element.tell = (what) => setTriggerValue("picked", what);
  element.chosen = () => shared.marks[data.name] || [];
  element.draw = () => soon(element);
  element.paint = async () => {
    if (!element.isConnected) return;
    if (data.first && !element.begun) {
      element.begun = true;
      setStateValue("begun", true);  // the server makes what is below while this is drawn
    }
    const figure = JSON.parse(legible(data.figure, element));
    learnt(figure);
    marked(figure, element.chosen(), themed(figure, element));
    if (data.selects) figure.layout.margin = {...figure.layout.margin, r: 56};  // of the tools
    const keepRoom = withRoom(figure, element);
    const unused = data.selects ? [] : ["select2d", "lasso2d"];
    const config = {displaylogo: false, responsive: true, scrollZoom: false,
                    displayModeBar: data.selects || "hover", modeBarButtonsToRemove: unused};
    element.drawing = true;  // a drawing that ends an outline says so, as a reader would
    await window.Plotly.react(element, figure.data, figure.layout, config);
    keepRoom();
    setTimeout(() => { element.drawing = false; }, 50);
    if (element.listening) return;
    element.listening = true;
    listen(element);
  };
  shared.charts[data.name] = element;
  element.draw();
}
"""

MARKS_JS = r"""
const shared = window.ffnNas = window.ffnNas || {charts: {}, marks: {}};

export default function ({data, parentElement}) {
  const holder = parentElement.closest('[data-testid="stElementContainer"]');
  if (holder) holder.style.position = "absolute";  // it shows nothing and takes no room
  const before = (shared.marks[data.name] || []).join(",");
  shared.marks[data.name] = data.selected;
  const chart = shared.charts[data.name];
  if (chart && chart.isConnected && before !== data.selected.join(",")) chart.draw();
}
"""
