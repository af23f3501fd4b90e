"""The HTML frame of every report."""

from __future__ import annotations

TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
:root { --ink: #1c2024; --soft: #5b6470; --line: #d9dee4; --ground: #fff; --panel: #f4f6f8; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #a2abb5; --line: #343b43; --ground: #14171a; --panel: #1d2226; --accent: #56b4e9; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; color: var(--ink); background: var(--ground);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
pre { background: var(--panel); padding: .7rem; border-radius: .4rem; white-space: pre-wrap; font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .85rem; color: var(--soft); }
dd { margin: 0; min-width: 0; }
figure { margin: 1rem 0; }
figcaption, caption { color: var(--soft); font-size: .85rem; text-align: left; padding: .3rem 0; }
svg { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
td:first-child { min-width: 6rem; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
@media (max-width: 30rem) { table { font-size: .78rem; } th, td { padding: .25rem .3rem; } td:first-child { min-width: 4.4rem; } dl { grid-template-columns: 1fr; } dd { margin-bottom: .3rem; } }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .8rem; }
.grid figure { margin: 0; background: var(--panel); border-radius: .4rem; padding: .5rem; font-size: .8rem; line-height: 1.35; }
.grid img { width: 100%; image-rendering: pixelated; border-radius: .2rem; display: block; margin-bottom: .3rem; }
.grid div:nth-of-type(n+3) { font-size: .68rem; color: var(--soft); overflow-wrap: anywhere; }
</style>
</head>
<body>
<header>
<h1>{{ title }}</h1>
<pre>{{ command }}</pre>
{% if facts %}
<dl>
{% for key, value in facts %}
<dt>{{ key }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
{% endif %}
</header>
<main>
{% for part in parts %}
{% if part.kind == "heading" %}
<h2>{{ part.text }}</h2>
{% elif part.kind == "text" %}
<p>{{ part.text }}</p>
{% elif part.kind == "table" %}
<div class="scroll"><table>
{% if part.caption %}<caption>{{ part.caption }}</caption>{% endif %}

<thead><tr>{% for name in part.header %}<th{% if part.rows and part.rows[0][loop.index0] and part.rows[0][loop.index0][1] %} class="number"{% endif %}>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in part.rows %}
<tr>{% for value, number in row %}<td{% if number %} class="number"{% endif %}>{{ value }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% elif part.kind == "figure" %}
<figure role="group"><div class="scroll" role="img" aria-label="{{ part.alt }}">{{ part.svg }}</div>
<figcaption>{{ part.caption }}</figcaption></figure>
{% elif part.kind == "pictures" %}
{% if part.caption %}<p>{{ part.caption }}</p>{% endif %}

<div class="grid">
{% for picture in part.pictures %}
<figure><img alt="{{ picture.lines | join(', ') }}" src="data:image/png;base64,{{ picture.png }}">
{% for line in picture.lines %}<div>{{ line }}</div>{% endfor %}
</figure>
{% endfor %}
</div>
{% endif %}
{% endfor %}
</main>
</body>
</html>
"""  # noqa: E501
