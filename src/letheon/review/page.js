// The review page. All texts reach the page as text nodes; nothing is ever parsed as HTML.

const view = { tab: "waiting", category: "", decision: "", judge: "" };
let settings, state;
let items = []; // the next dialogues of the queue; the first is on the page
let opened = null; // a decided turn that was opened from the list
let rows = [];
let shown = null; // the dialogue on the page: its number, and what of it may change while it is there
let revealed = null; // number of the dialogue that was asked for while texts are blurred
let blurred = false;
let sending = 0;
let ended = false;
const gone = new Set(); // decided or skipped here, not yet heard of by the server
let chain = Promise.resolve();
let poll;

const $ = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const svg = ["svg", "line", "rect", "circle"].includes(tag);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// -- talking to the server -------------------------------------------------------------------------------------------

async function call(path, body, more = {}) {
  const query = new URLSearchParams({ ...view, ...more });
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(`api/${path}?${query}`, options);
  } catch {
    ended = true;
    throw new Error("The command that serves this page has ended. All that was decided until then is saved.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error ?? `The server answered ${answer.status}.`);
  return told;
}

/** One after the other, in the order of the keys; what comes back is shown when the last has been answered. */
function send(path, body, then = arrived) {
  sending++;
  chain = chain
    .then(() => call(path, body))
    .finally(() => sending--)
    .then(then)
    .catch(failed);
}

function arrived(answer) {
  const learned = state.learned_from;
  state = answer.state;
  if (answer.items) {
    const current = opened ? null : items[0];
    const others = answer.items.filter((item) => !gone.has(item.number) && item.number !== current?.number);
    items = current ? [current, ...others] : others;
  }
  if (!sending) gone.clear();
  $("error").hidden = true;
  render();
  if (learned !== state.learned_from) anew();
}

/** The dialogue that is on the page stays when the queue is reordered, but its score may be another now. */
async function anew() {
  const current = items[0];
  if (!current || opened) return;
  const { item } = await call(`turn/${current.number}`);
  if (items[0]?.number !== item.number) return;
  items[0] = item;
  render();
}

function failed(error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
  gone.clear();
  if (!ended) refresh();
  else if (state) render();
}

async function refresh() {
  try {
    if (view.tab === "decided") {
      const answer = await call("decided");
      ({ state, rows } = answer);
      items = []; // an answer to what was sent from the tab before may have brought some
    } else {
      const answer = await call("queue");
      state = answer.state;
      items = answer.items;
    }
    render();
  } catch (error) {
    $("error").textContent = error.message;
    $("error").hidden = false;
  }
}

function watchLearning() {
  clearTimeout(poll);
  if (!state.learning || ended) return;
  poll = setTimeout(() => send(view.tab === "decided" ? "decided" : "queue"), 1000);
}

// -- decisions -------------------------------------------------------------------------------------------------------

function decide(decision) {
  const item = opened ?? items[0];
  if (!item || ended) return;
  const category = decision === "forget" ? chosenCategory() : null;
  const body = { number: item.number, decision, category };
  const what = { forget: `Forget, as ${category}`, normal: "Normal", undone: "Put back" }[decision];
  if (opened) {
    send("decide", body, () => back(item.number));
  } else {
    leave(item);
    send("decide", body);
  }
  say(what);
}

function skip() {
  if (opened) return back(opened.number);
  const item = items[0];
  if (!item || ended) return;
  leave(item);
  send("skip", { number: item.number });
  say("Skipped");
}

function undo() {
  if (opened) return decide("undone");
  if (ended || !(state.can_undo || sending)) return say("There is nothing to undo in this session");
  send("undo", {}, (answer) => {
    if (view.tab === "decided") return refresh();
    gone.clear();
    items = [];
    arrived(answer);
    if (answer.item) items = [answer.item, ...items.filter((item) => item.number !== answer.item.number)];
    render();
    say("Undone");
  });
}

function leave(item) {
  gone.add(item.number);
  items = items.slice(1);
  render();
}

function say(words) {
  const next = opened ? null : items[0];
  $("said").textContent = next ? `${words}. Next: ${next.category}, score ${next.score.toFixed(2)}.` : `${words}.`;
}

function chosenCategory() {
  const another = $("another");
  if (!another.hidden && another.value.trim()) return another.value.trim();
  return $("category").value === ANOTHER ? (opened ?? items[0]).category : $("category").value;
}

// -- the list of decided turns ---------------------------------------------------------------------------------------

async function open(number) {
  const answer = await call(`turn/${number}`).catch(failed);
  if (!answer) return;
  state = answer.state;
  opened = answer.item;
  render();
  $("main").focus({ preventScroll: true });
}

async function back(number) {
  opened = null;
  await refresh();
  document.querySelector(`[data-number="${number}"]`)?.focus();
}

async function more() {
  const answer = await call("decided", null, { offset: rows.length }).catch(failed);
  if (!answer) return;
  state = answer.state;
  rows = [...rows, ...answer.rows];
  render();
}

// -- drawing ---------------------------------------------------------------------------------------------------------

function render() {
  drawProgress();
  drawTools();
  const item = opened ?? items[0];
  const other = item && item.number !== shown?.number;
  if (!item) {
    shown = null;
    const list = view.tab === "decided";
    tell($("main"), list ? drawList() : sending ? el("p", { class: "rest" }, "…") : drawRest());
  } else {
    const now = { number: item.number, key: `${item.score} ${item.decided?.decision} ${isVeiled(item)}` };
    if (other || now.key !== shown.key) $("main").replaceChildren(drawCard(item));
    shown = now;
    drawCategories(item, other);
  }
  $("actions").hidden = !item;
  for (const id of ["forget", "normal", "skip"]) $(id).disabled = ended;
  $("undo").disabled = ended || (!opened && !state.can_undo && !sending);
  $("skip").firstElementChild.textContent = opened ? "Back" : "Skip";
  $("skip").lastElementChild.textContent = opened ? "Esc" : "S";
  $("undo").firstElementChild.textContent = opened ? "Put back" : "Undo";
  for (const id of ["forget", "normal"]) {
    if (opened) $(id).setAttribute("aria-pressed", opened.decided?.decision === id);
    else $(id).removeAttribute("aria-pressed");
  }
  if (other) scrollToAnswer();
  watchLearning();
}

/** Put children into an element, if they are not there already: a list that is open stays open. */
function tell(parent, ...children) {
  const now = el("div", {}, ...children);
  if (parent.innerHTML !== now.innerHTML) parent.replaceChildren(...now.childNodes);
}

/** Show the top of the dialogue, or, where the answer then lies too low, the answer with what comes right before it. */
function scrollToAnswer() {
  scrollTo(0, 0);
  const judged = document.querySelector(".judged");
  const { top, bottom } = judged.getBoundingClientRect();
  const visible = innerHeight - $("actions").offsetHeight;
  if (bottom > visible && top > visible * 0.4) judged.scrollIntoView({ block: "start" });
  const mark = judged.querySelector("mark");
  if (mark && mark.getBoundingClientRect().bottom > visible) {
    const go = () => mark.scrollIntoView({ block: "center" });
    judged.querySelector("h2").append(el("button", { type: "button", class: "jump", onclick: go }, "to the marked part"));
  }
}

function drawProgress() {
  const { band, band_decided: done, decided, forget, normal, waiting } = state.counts;
  const left = band - done;
  const words = el("span");
  if (view.tab === "audit" && state.audit) {
    words.append(el("b", {}, `${state.audit.labelled}`), ` of ${state.audit.asked} in the random sample labelled`);
  } else if (left) {
    words.append(el("b", {}, `${left}`), ` of ${count(band, "turn")} still ${left === 1 ? "waits" : "wait"} for you`);
  } else if (band) {
    words.append(el("b", {}, "All"), ` ${count(band, "turn")} that waited for you are decided`);
  } else {
    words.append(el("b", {}, `${decided}`), ` of ${count(decided + waiting, "turn")} decided`);
  }
  tell($("progress"), words);
  const audited = view.tab === "audit" && state.audit;
  const share = audited ? state.audit.labelled / state.audit.asked : band ? done / band : decided / (decided + waiting);
  $("bar").style.width = `${100 * (share || 0)}%`;
  const order = state.learned_from ? ` · reordered after ${state.learned_from} decisions` : "";
  $("more").textContent = `${forget} forget, ${normal} normal${state.learning ? " · learning from them …" : order}`;
  $("note").textContent = state.note ?? "";
  $("note").hidden = !state.note;
}

function drawTools() {
  const { counts, audit } = state;
  const numbers = { waiting: counts.waiting, decided: counts.decided, audit: audit && `${audit.labelled}/${audit.asked}` };
  for (const button of document.querySelectorAll("[data-tab]")) {
    const tab = button.dataset.tab;
    button.hidden = tab === "audit" && !audit;
    button.querySelector("span").textContent = typeof numbers[tab] === "number" ? thousands(numbers[tab]) : numbers[tab];
    if (tab === view.tab) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  for (const select of document.querySelectorAll("[data-filter]")) {
    const name = select.dataset.filter;
    const found = { ...state.facets[name] };
    if (view[name] && !(view[name] in found)) found[view[name]] = 0;
    const label = select.getAttribute("aria-label");
    const options = Object.entries(found).map(([value, n]) => el("option", { value }, `${value} (${thousands(n)})`));
    tell(select, el("option", { value: "" }, label), ...options);
    select.value = view[name];
    select.classList.toggle("on", view[name] !== "");
    select.disabled = opened !== null;
  }
  $("blur").setAttribute("aria-pressed", blurred);
}

const ANOTHER = "another …";

function drawCategories(item, other) {
  const names = [...new Set([...state.categories, item.category, ANOTHER])];
  const chosen = other ? item.category : $("category").value;
  tell($("category"), ...names.map((name) => el("option", { value: name }, name)));
  $("category").value = chosen;
  if (!other) return;
  $("another").hidden = true;
  $("another").value = "";
}

function drawCard(item) {
  const { judged } = item;
  const decision = item.decided?.decision ?? judged.decision;
  const title = item.decided ? item.decided.category : judged.category;
  const chip = [title === decision ? "" : decision, item.decided ? "by you" : ""].filter(Boolean).join(", ");
  const by = `${item.decided ? `The judges said ${judged.decision}. ` : ""}Judge ${judged.judge}`;
  const last = item.messages.length - 1;
  const messages = item.messages.map((message, number) => drawMessage(item, message, number));
  const body = el("div", {}, el("ol", { class: "messages" }, ...messages), drawExpected(item));
  if (isVeiled(item)) {
    body.className = "veiled";
    for (const child of body.children) {
      child.setAttribute("aria-hidden", "true");
      child.inert = true;
    }
    body.append(el("button", { type: "button", class: "unveil", onclick: reveal }, "Show this dialogue ", el("kbd", {}, "space")));
  }
  return el(
    "article",
    { class: "card", "aria-label": `Dialogue ${item.id}` },
    el(
      "div",
      { class: "facts" },
      el("h1", {}, title, !chip ? null : el("span", { class: `chip ${decision}` }, chip)),
      drawMeter(item),
      el("p", { class: "why" }, judged.reason ? `${by}: ${judged.reason}` : by),
      el("p", { class: "id" }, el("bdi", {}, item.id), last > 1 ? ` · message ${item.turn + 1} of ${last + 1}` : ""),
    ),
    body,
  );
}

function drawMessage(item, message, number) {
  const judged = number === item.turn;
  const who = { user: "User", assistant: "Assistant", system: "System" }[message.role];
  return el(
    "li",
    { class: `${message.role}${judged ? " judged" : ""}${number > item.turn ? " later" : ""}` },
    el("h2", {}, judged ? `${who} · the answer to decide on` : who),
    el("div", { class: "text", dir: "auto" }, ...drawText(message.text, judged ? item.span : null)),
  );
}

/** Text with fenced code as blocks and the span marked, as nodes. */
function drawText(text, span) {
  const nodes = [];
  let place = 0;
  for (const fence of text.matchAll(/^```[^\n`]*\n([^]*?)(?:^```[ \t]*(?:\n|$)|$(?![^]))/gm)) {
    const start = fence.index + fence[0].indexOf("\n") + 1;
    const end = text.slice(place, fence.index).trimEnd().length;
    nodes.push(...marked(text, place, place + end, span));
    nodes.push(el("pre", {}, el("code", {}, ...marked(text, start, start + fence[1].trimEnd().length, span))));
    place = fence.index + fence[0].length;
    while (text[place] === "\n") place++;
  }
  nodes.push(...marked(text, place, text.length, span));
  return nodes;
}

function marked(text, from, to, span) {
  if (from >= to) return [];
  if (!span || span[1] <= from || span[0] >= to) return [text.slice(from, to)];
  const [start, end] = [Math.max(from, span[0]), Math.min(to, span[1])];
  return [text.slice(from, start), el("mark", {}, text.slice(start, end)), text.slice(end, to)].filter((part) => part !== "");
}

function drawExpected(item) {
  if (!item.expected.length) return null;
  const answers = item.expected.map((text) => el("li", {}, el("div", { class: "text", dir: "auto" }, text)));
  return el("details", {}, el("summary", {}, "Acceptable answers, by the data"), el("ul", {}, ...answers));
}

function drawMeter(item) {
  const { normal_below: low, forget_above: high } = settings;
  const [now, before] = [item.score, item.judged.score];
  const moved = Math.abs(now - before) >= 0.005;
  const x = (score) => `${(100 * score).toFixed(1)}%`;
  const words = moved ? `, learnt; the judge's ${before.toFixed(2)}` : "";
  return el(
    "div",
    { class: "meter" },
    "Score ",
    el("b", {}, now.toFixed(2)),
    el("small", {}, words),
    el(
      "svg",
      { "aria-hidden": "true" },
      el("rect", { class: "band", x: x(low), width: x(high - low), y: 2, height: 14 }),
      el("line", { class: "line", x1: 0, x2: "100%", y1: 9, y2: 9, "stroke-width": 3, "stroke-linecap": "round" }),
      ...[...new Set([low, high])].map((at) => el("line", { class: "threshold", x1: x(at), x2: x(at), y1: 2, y2: 16, "stroke-width": 2 })),
      moved ? el("circle", { class: "before", cx: x(before), cy: 9, r: 4, "stroke-width": 1.5 }) : null,
      el("circle", { class: "dot", cx: x(now), cy: 9, r: 5.5 }),
    ),
  );
}

function drawList() {
  if (!rows.length) return drawRest();
  const found = rows.map((row) => {
    const { decided, judged } = row;
    const agreed = judged.decision === decided.decision ? "as the judges" : `the judges: ${judged.decision}`;
    return el(
      "li",
      {},
      el(
        "button",
        { type: "button", "data-number": row.number, onclick: () => open(row.number) },
        el("span", { class: `chip ${decided.decision}` }, decided.decision),
        el("span", { class: "what" }, el("bdi", {}, row.id), el("small", {}, ` · ${decided.decision === "forget" ? `${decided.category}, ` : ""}${agreed}`)),
        el("time", { datetime: decided.when }, when(decided.when)),
      ),
    );
  });
  const list = el("div", {}, el("ul", { class: "rows" }, ...found));
  const left = state.fitting - rows.length;
  if (left > 0) list.append(el("p", { class: "centre" }, el("button", { type: "button", class: "quiet", onclick: more }, `Show more (${thousands(left)} left)`)));
  return list;
}

function drawRest() {
  const filtered = view.category || view.decision || view.judge;
  if (filtered) {
    const clear = () => {
      Object.assign(view, { category: "", decision: "", judge: "" });
      change();
    };
    return el("div", { class: "rest" }, el("h1", {}, "No turn fits these filters"), el("p", {}, el("button", { type: "button", class: "quiet", onclick: clear }, "Show all")));
  }
  if (view.tab === "decided") return el("div", { class: "rest" }, el("h1", {}, "Nothing is decided yet"));
  const again = state.can_undo ? el("p", {}, el("button", { type: "button", class: "quiet", onclick: undo }, "Undo the last")) : null;
  if (view.tab === "audit") {
    const words = `${state.audit.words.replace(/^audit: /, "")}.`;
    return el("div", { class: "rest" }, el("h1", {}, "The sample is labelled"), el("p", {}, words), again);
  }
  return el(
    "div",
    { class: "rest" },
    el("h1", {}, "Nothing is left to decide"),
    el("p", {}, "Everything is saved. End the command with Ctrl-C; what follows from the decisions is redone by"),
    el("p", {}, el("code", {}, `letheon run ${settings.run}`)),
    again,
  );
}

function isVeiled(item) {
  return blurred && revealed !== item.number;
}

function reveal() {
  const item = opened ?? items[0];
  if (!item || !isVeiled(item)) return;
  revealed = item.number;
  render();
}

const thousands = (number) => number.toLocaleString("en");
const count = (number, noun) => `${thousands(number)} ${noun}${number === 1 ? "" : "s"}`;
const when = (iso) => new Date(iso).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

// -- what a person does ----------------------------------------------------------------------------------------------

/** Another queue or other filters: what is on the page goes. */
function change() {
  $("main").focus({ preventScroll: true });
  opened = null;
  items = [];
  rows = [];
  revealed = null;
  chain = chain.then(refresh);
}

const KEYS = { y: () => decide("forget"), n: () => decide("normal"), s: skip, u: undo, b: toggleBlur, " ": reveal };

function toggleBlur() {
  blurred = !blurred;
  revealed = null;
  render();
}

addEventListener("keydown", (event) => {
  // A key that is held down decides once.
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || !state) return;
  if (event.target.closest("input, select")) return;
  if (event.key === "Escape" && opened) return skip();
  if (event.key === " " && event.target.closest("button, summary")) return;
  // Where the layout has no Latin letters, the key's place counts.
  const key = /^[a-z ]$/i.test(event.key) ? event.key.toLowerCase() : event.code.replace(/^Key/, "").toLowerCase();
  const act = view.tab === "decided" && !opened ? { u: undo, b: toggleBlur }[key] : KEYS[key];
  if (!act) return;
  if (key === " " && !document.querySelector(".unveil")) return;
  event.preventDefault();
  act();
});

$("forget").addEventListener("click", KEYS.y);
$("normal").addEventListener("click", KEYS.n);
$("skip").addEventListener("click", skip);
$("undo").addEventListener("click", undo);
$("blur").addEventListener("click", toggleBlur);
for (const button of document.querySelectorAll("[data-tab]")) {
  button.addEventListener("click", () => {
    Object.assign(view, { tab: button.dataset.tab, category: "", decision: "", judge: "" });
    change();
  });
}
for (const select of document.querySelectorAll("[data-filter]")) {
  select.addEventListener("change", () => {
    view[select.dataset.filter] = select.value;
    change();
  });
}
$("category").addEventListener("change", () => {
  const other = $("category").value === ANOTHER;
  $("another").hidden = !other;
  if (other) $("another").focus();
  else $("category").blur();
});
$("another").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === "Escape") {
    if (event.key === "Escape") $("another").value = "";
    if (!$("another").value.trim()) {
      $("another").hidden = true;
      $("category").value = (opened ?? items[0]).category;
    }
    $("another").blur();
    event.preventDefault();
  }
});

$("main").tabIndex = -1;
try {
  const answer = await call("start");
  ({ settings } = answer);
  ({ blur: blurred } = settings);
  if (answer.state.audit && answer.state.audit.labelled < answer.state.audit.asked) {
    view.tab = "audit";
  }
  document.title = `Review · ${settings.run}`;
  $("run").textContent = settings.run;
  state = answer.state;
  items = answer.items;
  if (view.tab === "audit") await refresh();
  else render();
} catch (error) {
  failed(error);
}
