// Makes the page from openapi.json. Every text is set as text, never as markup, so nothing in the document can run.
"use strict";

const VERBS = ["get", "post", "put", "patch", "delete", "head", "options"];

function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "class") element.className = value;
    else if (value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// `code` and blank lines are all the Markdown that descriptions use.
function prose(text, name = "p", attributes = {}) {
  const element = make(name, attributes);
  String(text).split("`").forEach((part, index) => element.append(index % 2 ? make("code", {}, part) : part));
  return element;
}

function paragraphs(text, attributes) {
  return String(text || "").split(/\n\s*\n/).filter(Boolean).map((part) => prose(part, "p", attributes));
}

class Schemas {
  constructor(known) { this.known = known; }

  resolve(schema) {
    const seen = new Set();
    let found = schema || {};
    while (found.$ref && !seen.has(found.$ref)) {
      seen.add(found.$ref);
      const { $ref, ...beside } = found;
      found = { ...(this.known[$ref.split("/").pop()] || {}), ...beside };
    }
    return found;
  }

  options(schema) {
    const found = this.resolve(schema);
    return (found.anyOf || found.oneOf || [found]).map((option) => this.resolve(option));
  }

  type(schema) {
    return this.options(schema).map((option) => {
      if (option.enum) return option.enum.map((value) => JSON.stringify(value)).join(" | ");
      if (option.const !== undefined) return JSON.stringify(option.const);
      if (option.type === "array") return `list of ${this.type(option.items || {})}`;
      if (option.type === "object" && !option.properties && option.additionalProperties)
        return option.additionalProperties === true ? "object" : `map of ${this.type(option.additionalProperties)}`;
      if (option.format === "date-time") return "time";
      if (option.format === "binary") return "bytes";
      return option.type || option.title || "any";
    }).join(" | ");
  }

  facts(schema) {
    const found = this.resolve(schema);
    const facts = [];
    const say = (words, value, unit = "") => { if (value !== undefined) facts.push(`${words} ${value}${unit}`); };
    for (const option of [found, ...(found.anyOf || []).map((one) => this.resolve(one))]) {
      say("at least", option.minimum);
      say("more than", option.exclusiveMinimum);
      say("at most", option.maximum);
      if (option.minLength > 1) say("at least", option.minLength, " characters");
      say("at most", option.maxLength, " characters");
      say("at most", option.maxItems, " entries");
    }
    if (found.default !== undefined && found.default !== null && JSON.stringify(found.default).length < 80) say("default", JSON.stringify(found.default));
    return facts.join(" · ");
  }

  // The members of an object, or of the objects in a list; null where there are none.
  members(schema) {
    for (const option of this.options(schema)) {
      if (option.type === "array") return this.members(option.items || {});
      if (option.properties) return option;
    }
    return null;
  }

  example(schema, depth = 0) {
    const found = this.resolve(schema);
    if (found.examples && found.examples.length) return found.examples[0];
    if (found.example !== undefined) return found.example;
    if (found.default !== undefined) return found.default;
    const option = this.options(schema)[0];
    if (found.anyOf && this.options(schema).some((one) => one.type === "null")) return null;
    if (option.examples && option.examples.length) return option.examples[0];
    if (option.const !== undefined) return option.const;
    if (option.enum) return option.enum[0];
    if (depth > 6) return null;
    if (option.properties) {
      const entries = Object.entries(option.properties).filter(([name, member]) => !(member.default === null && !(option.required || []).includes(name)));
      return Object.fromEntries(entries.map(([name, member]) => [name, this.example(member, depth + 1)]));
    }
    if (option.type === "array") return [this.example(option.items || {}, depth + 1)];
    if (option.type === "object") return {};
    if (option.type === "integer" || option.type === "number") return option.minimum || 0;
    if (option.type === "boolean") return false;
    if (option.type === "string") return "";
    return null;
  }
}

function field(schemas, name, schema, required, description, depth = 0) {
  const found = schemas.resolve(schema);
  const head = make("dt", {}, make("code", {}, name), make("span", { class: "type" }, schemas.type(schema)), required ? make("span", { class: "must" }, "required") : null);
  const body = make("dd", {});
  const text = description || (schema.$ref ? "" : found.description);
  if (text) body.append(prose(text, "span"));
  const facts = schemas.facts(schema);
  if (facts) body.append(make("div", { class: "facts" }, facts));
  const inner = depth < 3 ? schemas.members(schema) : null;
  if (inner) body.append(fields(schemas, inner, required !== undefined, depth + 1));
  return make("div", { class: "field" }, head, body);
}

// `asked` tells whether a caller writes this: only then does it matter what is required.
function fields(schemas, schema, asked, depth = 0) {
  const required = new Set(schema.required || []);
  return make("dl", {}, ...Object.entries(schema.properties).map(([name, member]) =>
    field(schemas, name, member, asked ? required.has(name) : undefined, member.description, depth)));
}

// One kind of token a line: names of members, text, numbers and words; of a command also its options.
const TOKENS = {
  json: /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*|\btrue\b|\bfalse\b|\bnull\b)/g,
  shell: /("[^"]*"|'[^']*')|(?<=\s)(--?[A-Za-z][\w-]*|\\$)/gm,
};

function coloured(text, language) {
  const code = make("code", {});
  let end = 0;
  for (const found of text.matchAll(TOKENS[language])) {
    const [whole, quoted, after] = found;
    const style = !quoted ? (language === "json" ? "literal" : "flag") : language === "json" && after ? "key" : "text";
    const token = language === "json" && after ? quoted : whole;
    code.append(text.slice(end, found.index), make("span", { class: style }, token));
    end = found.index + token.length;
  }
  code.append(text.slice(end));
  return code;
}

function sample(text, language = "json") {
  const code = coloured(text, language);
  const button = make("button", { type: "button" }, "copy");
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text); button.textContent = "copied"; }
    catch { getSelection().selectAllChildren(code); button.textContent = "selected"; }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  return make("div", { class: "sample" }, make("pre", { tabindex: "0" }, code), button);
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function bodyOf(schemas, operation) {
  const content = (operation.requestBody || {}).content || {};
  const json = content["application/json"];
  return { raw: "application/octet-stream" in content, json: json && json.schema };
}

// Optional parameters without which a call says nothing.
const SHOWN = new Set(["path", "ttl_seconds"]);

function curl(schemas, verb, path, operation) {
  const parameters = operation.parameters || [];
  let url = path;
  for (const parameter of parameters.filter((one) => one.in === "path")) {
    // A variable $PATH would be the shell's own.
    url = url.replace(`{${parameter.name}}`, parameter.name === "path" ? "" : `$${parameter.name.toUpperCase()}`);
  }
  const place = /\/(list|find|search|tar)$/.test(path) ? "/home/user" : "/home/user/hello.txt";
  const query = parameters.filter((one) => one.in === "query" && (one.required || SHOWN.has(one.name)))
    .map((one) => `${one.name}=${one.name === "path" ? place : encodeURIComponent(schemas.example(one.schema) || 600)}`);
  const options = [(operation.responses || {})["307"] ? " -L" : "", verb === "head" ? " -I" : "", ["get", "head"].includes(verb) ? "" : ` -X ${verb.toUpperCase()}`];
  const lines = [`curl${options.join("")} "$URL${url}${query.length ? `?${query.join("&")}` : ""}"`];
  if (operation.security && operation.security.length) lines.push(`-H "Authorization: Bearer $TOKEN"`);
  const body = bodyOf(schemas, operation);
  if (body.raw) lines.push(`--data-binary @hello.${path.endsWith("/tar") ? "tar" : "txt"}`);
  else if (body.json) lines.push("-H 'Content-Type: application/json'", `-d ${quote(written(schemas.example(body.json)))}`);
  return lines.join(" \\\n  ");
}

// JSON on one line where it is short, else a member a line, indented as the line of the command that it belongs to.
function written(value) {
  const short = JSON.stringify(value);
  return short.length <= 48 ? short : JSON.stringify(value, null, 2).replaceAll("\n", "\n  ");
}

function answers(schemas, operation) {
  const rows = [];
  const samples = [];
  for (const [status, answer] of Object.entries(operation.responses || {})) {
    const kind = status >= "400" ? "status bad" : status >= "300" ? "status moved" : "status";
    rows.push(make("div", { class: kind }, make("span", { class: "number" }, status), prose(answer.description || "", "span")));
    const json = ((answer.content || {})["application/json"] || {}).schema;
    if (json && status < "300") {
      samples.push([status, schemas.example(json)]);
      const members = schemas.members(json);
      if (members) rows.push(make("details", {}, make("summary", {}, Object.keys(members.properties).join(", ")), fields(schemas, members, false)));
    }
  }
  return { rows, samples };
}

function path(text) {
  const element = make("span", { class: "path" });
  for (const part of text.split(/(\{[^}]*\})/)) element.append(part.startsWith("{") ? make("b", {}, part) : part);
  return element;
}

function anchor(id) {
  return make("a", { class: "anchor", href: `#${id}`, "aria-label": "Link to this" }, "#");
}

function article(schemas, route) {
  const { verb, operation } = route;
  const told = make("div", {});
  const shown = make("div", { class: "shown" });
  paragraphs(operation.description).forEach((one) => told.append(one));
  const parameters = operation.parameters || [];
  for (const [place, words] of [["path", "Path"], ["query", "Query"], ["header", "Headers"]]) {
    const here = parameters.filter((one) => one.in === place);
    if (here.length) told.append(make("h4", {}, words), make("dl", {}, ...here.map((one) => field(schemas, one.name, one.schema, one.required, one.description))));
  }
  const body = bodyOf(schemas, operation);
  if (body.raw) told.append(make("h4", {}, "Raw body"), prose("Any bytes, streamed."));
  if (body.json) {
    const members = schemas.members(body.json);
    told.append(make("h4", {}, body.raw ? "Or JSON body" : "JSON body"));
    if (members) told.append(fields(schemas, members, true));
  }
  const { rows, samples } = answers(schemas, operation);
  told.append(make("h4", {}, "Answers"), ...rows);
  shown.append(make("h4", {}, "Call"), sample(curl(schemas, verb, route.path, operation), "shell"));
  for (const [status, example] of samples) shown.append(make("h4", {}, `Answer ${status}`), sample(JSON.stringify(example, null, 2)));
  return make("article", { id: route.id },
    make("h3", {}, make("span", { class: `verb ${verb}` }, verb), make("a", { href: `#${route.id}` }, path(route.path)), anchor(route.id)),
    prose(operation.summary || "", "p", { class: "summary" }),
    make("div", { class: "columns" }, told, shown));
}

function problem(schemas) {
  const members = schemas.known.Problem && schemas.members(schemas.known.Problem);
  if (!members) return null;
  const shown = { error: { code: "not_found", message: "no such route", request_id: "01K6Z8Q4T3V7WXYZ0123456789", kind: "route" } };
  return make("article", {}, make("div", { class: "columns" },
    make("div", {}, prose("Every error has this form. Beside the fields named here, `error` carries those of its code."), fields(schemas, members, false)),
    make("div", {}, make("h4", {}, "For example"), sample(JSON.stringify(shown, null, 2)))));
}

// What is told once for all routes.
function about(schemas, document_) {
  const sections = [];
  for (const scheme of Object.values((document_.components || {}).securitySchemes || {})) {
    sections.push(["credential", "Credential", make("article", {}, prose(scheme.description || scheme.type))]);
  }
  const errors = problem(schemas);
  if (errors) sections.push(["errors", "Errors", errors]);
  const all = Object.entries(schemas.known).filter(([, schema]) => schema.properties || schema.enum);
  sections.push(["schemas", "Schemas", make("article", {}, ...all.map(([name, schema]) => make("details", { class: "schema", id: `schema-${name}` },
    make("summary", {}, name, anchor(`schema-${name}`)), ...paragraphs(schema.description),
    schema.properties ? fields(schemas, schema, true) : prose(schema.enum.map((value) => `\`${value}\``).join(" ")))))]);
  return sections.map(([id, words, content]) => ({ id, words, section: make("section", { id }, make("h2", {}, words, anchor(id)), content) }));
}

function routesOf(document_) {
  const routes = [];
  for (const [where, item] of Object.entries(document_.paths || {})) {
    for (const verb of Object.keys(item).filter((one) => VERBS.includes(one))) {
      const operation = item[verb];
      routes.push({ verb, operation, path: where, group: (operation.tags || ["other"])[0], id: operation.operationId || `${verb}${where}` });
    }
  }
  return routes;
}

function intro(document_) {
  const settings = [`URL=${location.origin}`, "TOKEN=  # none in dev mode"];
  return make("section", { class: "intro" }, ...paragraphs(document_.info.description),
    prose("The calls on this page take the address and the credential from the shell:"), sample(settings.join("\n"), "shell"));
}

function show(document_) {
  const schemas = new Schemas((document_.components || {}).schemas || {});
  const main = document.getElementById("main");
  const nav = document.getElementById("nav");
  document.title = document_.info.title;
  document.getElementById("title").textContent = document_.info.title;
  document.getElementById("version").textContent = document_.info.version;
  const routes = routesOf(document_);
  const content = [];
  content.push(intro(document_));
  for (const group of new Set(routes.map((route) => route.group))) {
    const section = make("section", { id: `group-${group}` }, make("h2", {}, group, anchor(`group-${group}`)));
    const links = [];
    for (const route of routes.filter((one) => one.group === group)) {
      route.article = article(schemas, route);
      route.link = make("a", { href: `#${route.id}` }, make("span", { class: `verb ${route.verb}` }, route.verb === "delete" ? "del" : route.verb), make("span", {}, route.operation.summary || route.path));
      section.append(route.article);
      links.push(route.link);
    }
    nav.append(make("h2", {}, group), ...links);
    content.push(section);
  }
  nav.append(make("h2", {}, "about"));
  for (const { id, words, section } of about(schemas, document_)) {
    content.push(section);
    nav.append(make("a", { href: `#${id}` }, make("span", { class: "verb" }, "{ }"), make("span", {}, words)));
  }
  main.replaceChildren(...content);
  filtering(routes);
  marking(routes);
  addEventListener("hashchange", arrive);
  arrive();
}

// Go where the address points, as the browser did before there was anything to go to; what is folded there is opened.
function arrive() {
  const found = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!found) return;
  if (found.tagName === "DETAILS") found.open = true;
  found.scrollIntoView();
}

function filtering(routes) {
  const input = document.getElementById("filter");
  const none = make("p", { class: "nothing", hidden: "" }, "No route matches.");
  document.getElementById("main").prepend(none);
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const route of routes) {
      const text = `${route.verb} ${route.path} ${route.group} ${route.operation.summary || ""}`.toLowerCase();
      const hit = words.every((word) => text.includes(word));
      route.article.hidden = route.link.hidden = !hit;
      count += hit;
    }
    for (const section of document.querySelectorAll('main > section[id^="group-"]')) section.hidden = !section.querySelector("article:not([hidden])");
    none.hidden = count > 0;
  };
  input.addEventListener("input", apply);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== input) { event.preventDefault(); input.focus(); }
    if (event.key === "Escape" && document.activeElement === input) { input.value = ""; apply(); input.blur(); }
  });
}

function marking(routes) {
  if (!("IntersectionObserver" in window)) return;
  const links = new Map(routes.map((route) => [route.article, route.link]));
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target).setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-80px 0px -70% 0px" });
  for (const one of links.keys()) observer.observe(one);
}

// The system's choice holds until the reader makes one.
function theming() {
  const root = document.documentElement;
  try { if (localStorage.getItem("theme")) root.dataset.theme = localStorage.getItem("theme"); } catch { /* storage may be off */ }
  document.getElementById("theme").addEventListener("click", () => {
    const shown = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = shown === "dark" ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* as above */ }
  });
}

// On a narrow screen the list of routes is a page of its own, until one is chosen.
function menu() {
  const root = document.documentElement;
  const button = document.getElementById("menu");
  const set = (open) => {
    root.dataset.menu = open ? "open" : "";
    button.setAttribute("aria-expanded", String(open));
  };
  button.addEventListener("click", () => set(root.dataset.menu !== "open"));
  document.getElementById("nav").addEventListener("click", (event) => { if (event.target.closest("a")) set(false); });
  document.getElementById("filter").addEventListener("input", () => set(false));
}

theming();
menu();
fetch("/openapi.json")
  .then((answer) => { if (!answer.ok) throw new Error(`status ${answer.status}`); return answer.json(); })
  .then(show)
  .catch((error) => document.getElementById("main").replaceChildren(make("p", { class: "failed" }, `Cannot load openapi.json: ${error.message}`)));
