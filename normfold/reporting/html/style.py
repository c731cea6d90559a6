"""The style sheet of the page."""

STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --muted: #5b6570; --line: #d8dde3; --accent: #1f6feb;
  --pass: #1a7f37; --fail: #c5221f; --unsure: #9a6700; --original: #7a869a; --folded: #1f6feb;
  --site: #fff1d6; --site-line: #bf8700; --target: #dcf5e3; --target-line: #1a7f37;
  --changed: #e3edfd; --changed-line: #4c7fd0; }
@media (prefers-color-scheme: dark) { :root {
  --page: #0f1317; --card: #181d23; --ink: #e6eaee; --muted: #9aa5b1; --line: #323a43; --accent: #6ea8fe;
  --pass: #4ac26b; --fail: #ff7b72; --unsure: #d9a530; --original: #93a0b4; --folded: #6ea8fe;
  --site: #3d2f10; --site-line: #d9a530; --target: #12351f; --target-line: #4ac26b;
  --changed: #16263f; --changed-line: #6ea8fe; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.35rem; line-height: 1.3; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
h1, h2, h3, p, li, td, th, dd, summary, code { overflow-wrap: anywhere; }
p { margin: .3rem 0; }
code { font: .92em ui-monospace, "DejaVu Sans Mono", monospace; }
.muted { color: var(--muted); }
.small { font-size: .875rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem;
  margin: 0 0 .7rem; }
.pill { display: inline-block; border: 1px solid currentColor; border-radius: 1rem; padding: 0 .6rem;
  font-size: .875rem; font-weight: 600; }
.pass { color: var(--pass); } .fail { color: var(--fail); } .unsure { color: var(--unsure); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .7rem;
  margin: 1rem 0; }
.tiles .card { margin: 0; }
.tiles b { display: block; font-size: 1.3rem; font-weight: 600; }
details > summary { cursor: pointer; }
details[open] > summary { margin-bottom: .6rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .8rem; }
.graph { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; padding: .5rem; margin: 0; }
.graph figcaption { color: var(--muted); font-size: .875rem; margin-bottom: .3rem; }
svg { display: block; margin: 0 auto; height: auto; max-width: 100%; }
svg text { fill: var(--ink); font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 11px; }
svg .op { font-weight: 700; font-size: 12.5px; }
svg .faint { fill: var(--muted); }
svg rect { fill: var(--card); stroke: var(--line); stroke-width: 1.5; }
svg .site rect { fill: var(--site); stroke: var(--site-line); }
svg .target rect { fill: var(--target); stroke: var(--target-line); }
svg .changed rect { fill: var(--changed); stroke: var(--changed-line); }
svg .input rect { stroke-dasharray: 4 3; }
svg path { fill: none; stroke: var(--muted); stroke-width: 1.3; }
svg.histogram { width: 100%; max-width: 30rem; margin: .2rem 0 1rem; }
svg.histogram rect { stroke: none; }
svg.histogram .original { fill: var(--original); } svg.histogram .folded { fill: var(--folded); }
svg.histogram .bound { stroke: var(--fail); stroke-width: 2; }
svg.histogram text { font-size: 9px; fill: var(--muted); }
svg marker path { fill: var(--muted); stroke: none; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1rem; }
.legend i { display: inline-block; width: .9rem; height: .9rem; border-radius: .2rem; vertical-align: -.1rem;
  margin-right: .35rem; border: 1.5px solid var(--line); }
.legend .site { background: var(--site); border-color: var(--site-line); }
.legend .target { background: var(--target); border-color: var(--target-line); }
.legend .changed { background: var(--changed); border-color: var(--changed-line); }
.legend .context { background: var(--card); }
.legend .original { background: var(--original); } .legend .folded { background: var(--folded); }
.legend .bound { background: var(--fail); width: 3px; border: 0; }
.scale { position: relative; height: 1.5rem; margin: .35rem 0 .15rem; border-bottom: 1px solid var(--line); }
.scale span { position: absolute; height: .5rem; border-radius: .25rem; min-width: .5rem; }
.scale .original { top: .1rem; background: var(--original); }
.scale .folded { top: .8rem; background: var(--folded); }
.scale .bound { top: 0; height: 1.5rem; width: 3px; min-width: 3px; border-radius: 0;
  background: var(--fail); }
.ticks { position: relative; height: 1.3rem; font-size: .75rem; color: var(--muted); }
.ticks span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.bars div { position: relative; height: .5rem; background: var(--line); border-radius: .25rem;
  margin: .1rem 0 .5rem; }
.bars div span { position: absolute; left: 0; top: 0; bottom: 0; min-width: 2px; border-radius: .25rem;
  background: var(--accent); }
.row { display: flex; justify-content: space-between; gap: 1rem; }
.row > :last-child { flex: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 600; }
td, th { min-width: 4rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem .8rem; margin: .4rem 0; }
dt { color: var(--muted); } dd { margin: 0; }
ul { padding-left: 1.2rem; margin: .3rem 0; }
a { color: var(--accent); }
article + article { border-top: 2px solid var(--line); margin-top: 2.5rem; padding-top: 1.5rem; }
"""
