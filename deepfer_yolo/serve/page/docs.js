// The OpenAPI document as a page, without a library.
import { $, ask, el } from "./elements.js";

document.documentElement.dataset.theme = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
const document_ = await ask("openapi.json");
$("about").textContent = `${document_.info.title} ${document_.info.version}. ${document_.info.description}`;
for (const [path, methods] of Object.entries(document_.paths)) {
  for (const [method, call] of Object.entries(methods)) $("calls").append(callPart(path, method.toUpperCase(), call));
}
document.documentElement.dataset.ready = "yes";

function callPart(path, method, call) {
  const fields = Object.entries(call.requestBody?.content?.["multipart/form-data"]?.schema?.properties ?? {});
  const inputs = [
    ...(call.parameters ?? []).map((p) => [p.name, `in the ${p.in}, ${p.schema.type}${p.required ? "" : ", optional"}`]),
    ...fields.map(([name, schema]) => [name, `form field, ${schema.type === "array" ? schema.maxItems === 1 ? "one file" : `1 to ${schema.maxItems} files` : schema.type}`]),
  ];
  const answers = Object.entries(call.responses).map(([status, answer]) => el("tr", {}, el("td", {}, status), el("td", {}, answer.description)));
  return el("article", { class: "card" },
    el("h3", {}, el("code", {}, `${method} ${path}`), el("span", { class: "chip" }, call.summary)),
    el("p", {}, (call.description ?? "").replaceAll("`", "")),
    inputs.length === 0 ? null : el("dl", { class: "facts" }, ...inputs.flatMap(([name, what]) => [el("dt", {}, el("code", {}, name)), el("dd", {}, what)])),
    el("pre", {}, el("code", {}, curl(path, method, fields))),
    el("details", {}, el("summary", {}, "Answers"), el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, ...answers)))));
}

function curl(path, method, fields) {
  const name = path.endsWith("video") ? "clip.mp4" : "portrait.jpg";
  const form = fields.map(([field, schema]) => ` -F ${field}=${schema.type === "array" ? `@${name}` : "true"}`).join("");
  return `curl${method === "GET" || form ? "" : ` -X ${method}`}${form} ${new URL(path.slice(1).replace("{index}", "0"), location.href)}`;
}
